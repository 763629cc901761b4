/** A file on the wire. */

import type { FileEntry, FileEvent } from "@bhatti/contract/file"
import type { GuestFile, FileEvent as GuestFileEvent } from "@bhatti/contract/guest"

export function viewFileEvent({ isDirectory, ...event }: GuestFileEvent): FileEvent {
  return { ...event, is_dir: isDirectory }
}

export function viewFile(file: GuestFile): FileEntry {
  return {
    name: file.name,
    size: file.size,
    mode: file.mode,
    is_dir: file.type === "directory",
    type: file.type,
    owner: file.owner,
    group: file.group,
    mtime: new Date(file.modifiedUnixMs).toISOString(),
    target: file.target,
  }
}
