/** Sentences about ends of commands whose exit code alone would mislead. */

import type { ExecExit } from "@bhatti/sdk/exec-stream"
import { printable } from "./words.ts"

type Kill = NonNullable<NonNullable<ExecExit["detail"]>["memory_kills"]>[number]

/** Returns undefined if the exit code says enough. A daemon older than this program gives no reason. */
export function endWords({ exit_code, signal, timed_out, reason, by, detail }: ExecExit): string | undefined {
  if (timed_out) return "the command was killed: its --timeout is over"
  const [kill] = detail?.memory_kills ?? []
  switch (reason) {
    case "out_of_memory":
      return `the command was killed: ${kill ? killWords(kill) : "the sandbox ran out of memory"}`
    case "signal":
      if (kill) return killWords(kill)
      return signal === "KILL" ? `the command was killed by ${senderWords(by)}` : undefined
    case "exited":
      if (exit_code === 0) return undefined
      if (kill) return killWords(kill)
      return fullWords(detail?.disk_full)
    default:
      return undefined
  }
}

function killWords({ name, memory_mb, guest_memory_mb, in_cgroup }: Kill): string {
  const program = printable(name)
  if (in_cgroup) return `a control group in the sandbox ran out of memory: ${program} had ${memory_mb} MiB`
  const more = 2 ** Math.ceil(Math.log2(guest_memory_mb) + 1)
  return `the sandbox ran out of memory: ${program} had ${memory_mb} MiB of ${guest_memory_mb}; for more: bhatti create --memory ${more}`
}

function fullWords(full: "space" | "inodes" | undefined): string | undefined {
  if (full === undefined) return undefined
  return full === "space" ? "the sandbox's disk is full" : "the sandbox's disk has no room for more files"
}

function senderWords(by: string | null | undefined): string {
  if (by === "client") return "a request of yours"
  return by === "guest" ? "SIGKILL from inside the sandbox" : "SIGKILL"
}
