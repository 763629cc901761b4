/** Processes as readable text. */

import type { Process } from "@bhatti/contract/process"

export function endText({ exit_code, signal, reason, by }: NonNullable<Process["ended"]>): string {
  if (reason === "time_limit") return "killed: its time is over"
  if (reason === "out_of_memory") return "killed: out of memory"
  if (reason === "disconnected") return "killed: its client left"
  if (signal === null) return `exited ${exit_code}`
  return by === null || by === undefined ? `killed by ${signal}` : `killed by ${signal} (${by})`
}
