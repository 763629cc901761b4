/** A named snapshot on the wire. */

import type { Snapshot } from "@bhatti/contract/snapshot"
import type { SnapshotRecord } from "../../store/snapshots.ts"

export function viewSnapshot(record: SnapshotRecord): Snapshot {
  return {
    id: record.id,
    user_id: record.userId,
    name: record.name,
    status: record.state,
    source_sandbox: record.sourceName,
    source_id: record.sourceId,
    image: record.imageShownAs ?? record.imageName,
    cpus: record.cpus,
    memory_mb: record.memoryMib,
    disk_size_mb: record.diskMib,
    has_memory: record.hasMemory,
    size_mb: Math.ceil(record.bytes / 1024 / 1024),
    created_at: record.createdAt,
  }
}
