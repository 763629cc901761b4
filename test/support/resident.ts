/** How much memory of a process is in use, now or at most so far. */

import { readFileSync } from "node:fs"

export function residentMib(pid: number, field: "VmRSS" | "VmHWM" = "VmRSS"): number {
  const line = readFileSync(`/proc/${pid}/status`, "utf8")
    .split("\n")
    .find((one) => one.startsWith(`${field}:`))
  // A process that has just ended has no memory.
  return Number(line?.replaceAll(/\D/g, "") ?? 0) / 1024
}
