/** Processes on the wire. */

import type { endFields, MemoryKill } from "@bhatti/contract/ended"
import type { EndDetail, ProcessEnd, ProcessRecord } from "@bhatti/contract/guest"
import type { Process } from "@bhatti/contract/process"
import type { z } from "zod"
import { isSession } from "../../core/process-presets.ts"

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

export function viewProcess(sandboxId: string, record: ProcessRecord): Process {
  const { id, name, argv, user, cwd, pid, tty, ended, driven, watchers, output } = record
  return {
    ...{ process_id: id, sandbox_id: sandboxId, name, argv, user, cwd, pid, tty, driven, watchers, output },
    kind: isSession(record) ? "session" : "command",
    running: !ended,
    ended: ended && viewEnd(ended),
    on_disconnect: record.onDisconnect,
    input_open: record.inputOpen,
    created_at: new Date(record.createdUnixMs).toISOString(),
    ended_at: record.endedUnixMs === null ? null : new Date(record.endedUnixMs).toISOString(),
  }
}
