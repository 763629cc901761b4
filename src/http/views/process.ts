/** Processes on the wire. */

import type { endFields, MemoryKill } from "@bhatti/contract/ended"
import type { EndDetail, ProcessEnd } from "@bhatti/contract/guest"
import type { z } from "zod"

type Ended = z.infer<z.ZodObject<typeof endFields>>

export function viewEnd({ exitCode, signal, reason, by, detail }: ProcessEnd): Ended {
  return {
    exit_code: exitCode,
    signal,
    timed_out: reason === "time_limit",
    reason,
    by,
    detail: detail && viewDetail(detail),
  }
}

function viewDetail({ memoryKills, diskFull }: EndDetail): NonNullable<Ended["detail"]> {
  return {
    ...(memoryKills.length > 0 && { memory_kills: memoryKills.map(viewKill) }),
    ...(diskFull && { disk_full: diskFull }),
  }
}

function viewKill(kill: EndDetail["memoryKills"][number]): MemoryKill {
  return {
    pid: kill.pid,
    name: kill.name,
    memory_mb: mib(kill.anonKib + kill.fileKib + kill.shmemKib),
    guest_memory_mb: mib(kill.memoryKib),
    in_cgroup: kill.inCgroup,
  }
}

function mib(kib: number): number {
  return Math.round(kib / 1024)
}
