/**
 * Memory that can be taken before the kernel has to kill something: the kernel's available memory, or less if a control
 * group of this process (version 2 or 1) allows less.
 */

import { dirname, join } from "node:path"
import { readIfReadable } from "./missing-files.ts"

const hierarchies = [
  { mount: "sys/fs/cgroup", controller: "", limit: "memory.max", used: "memory.current", total: "" },
  {
    mount: "sys/fs/cgroup/memory",
    controller: "memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    total: "total_",
  },
]
type Hierarchy = (typeof hierarchies)[number]

const kibibyte = 1024
const mebibyte = 1024 * 1024

/**
 * `groups: "own"` means all groups of this process, `"outermost"` only the group that contains everything here, which
 * in a container is the container's.
 */
export function availableMemoryMib(options: { groups: "own" | "outermost"; root?: string }): number {
  const { groups, root = "/" } = options
  const known = /^MemAvailable:\s+(\d+) kB$/m.exec(readIfAny(join(root, "proc/meminfo")))?.[1]
  let bytes = Number(known ?? 0) * kibibyte
  const ownGroups = readIfAny(join(root, "proc/self/cgroup"))
  for (const hierarchy of hierarchies) {
    const mount = join(root, hierarchy.mount)
    const own = new RegExp(`^\\d+:${hierarchy.controller}:(/.*)$`, "m").exec(ownGroups)?.[1]
    // A container may see its own group's name and have that group as its root.
    const inner = join(mount, groups === "own" ? (own ?? "/") : "/")
    for (let path = inner.startsWith(mount) ? inner : mount; ; path = dirname(path)) {
      bytes = Math.min(bytes, leftIn(path, hierarchy))
      if (path.length <= mount.length + 1) break
    }
  }
  return Math.max(0, Math.floor(bytes / mebibyte))
}

/** Counts the group's page cache as free. */
function leftIn(path: string, { limit, used, total }: Hierarchy): number {
  const limitBytes = Number(readIfAny(join(path, limit)) || Number.NaN)
  // Without a limit, the file holds a word or a number larger than any memory, or is missing.
  if (!(limitBytes < Number.MAX_SAFE_INTEGER)) return Number.POSITIVE_INFINITY
  const statistics = readIfAny(join(path, "memory.stat"))
  const filePages = ["active_file", "inactive_file"].map(
    (name) => new RegExp(`^${total}${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0,
  )
  return filePages.reduce<number>(
    (sum, value) => sum + Number(value),
    limitBytes - Number(readIfAny(join(path, used))),
  )
}

function readIfAny(path: string): string {
  return readIfReadable(path)?.trimEnd() ?? ""
}
