/**
 * Makes a layer of a disk: the tar archive of its whole tree, with owners, attributes, hard links and devices. The work
 * is done by the unpacker (`unpack/pack.go`), which has no rights on the host; no machine is needed.
 */
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { refusal } from "./refusal.ts"
import { runUnpacker, type UnpackLimits, unpackLimits } from "./unpacker.ts"

/** A file of a disk. Overlays are made by QEMU; their headers do not say what lies below them. */
export type DiskFile = { path: string; format: "raw" | "qcow2" }

export type PackOptions = {
  /** Newest first. Their journal is replayed in a copy. */
  files: readonly DiskFile[]
  diskMib: number
  /** Leaves out the parts that belong to that sandbox alone. */
  isOfSandbox: boolean
  /** For this work alone, and emptied first. It needs room for the disk's files twice. */
  directory: string
  /** The user id that the unpacker runs as if the caller is root. */
  uid: number
  limits?: Partial<UnpackLimits>
  signal?: AbortSignal
}

export type PackedLayer = {
  /** An uncompressed archive, the only file in the directory. */
  file: string
  digest: string
  size: number
  entries: number
  /** Sockets, and names that a layer cannot hold. */
  leftOut: number
}

/** Patterns of paths, without a slash at the beginning; `*` stands for a part of one name. */
const sandboxOnly = {
  omitted: [
    "tmp/*",
    "var/tmp/*",
    "etc/ssh/ssh_host_*",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/archives/partial/*",
  ],
  emptied: ["etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf", "var/lib/dbus/machine-id"],
  // The agent makes them at each boot.
  omitted_links: ["poweroff", "halt", "shutdown", "reboot"].map((name) => ({
    path: `usr/local/sbin/${name}`,
    target: "/proc/1/exe",
  })),
}

/** Throws an error with a `reason` if the disk is refused; the directory is empty then. */
export async function packDisk(options: PackOptions): Promise<PackedLayer> {
  const { files, diskMib, isOfSandbox, directory, uid, signal } = options
  const limits = { ...unpackLimits, ...options.limits }
  const result = await runUnpacker({
    ...{ directory, uid, limits, signal },
    from: { disk: files, diskBytes: diskMib * 1024 * 1024, ...(isOfSandbox && sandboxOnly) },
  })
  if (result.type !== "done") throw refusal("bad_disk", "the disk holds no file system")
  const file = join(directory, "layer.tar")
  const { size } = await stat(file)
  return {
    ...{ file, size, digest: `sha256:${result.id}` },
    ...{ entries: result.entries, leftOut: result.left_out },
  }
}
