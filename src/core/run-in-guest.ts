/** Runs a command of the daemon's own in a guest and waits for its end; its output is dropped. */

import { AppError, isGuestReason } from "@bhatti/contract/errors"
import type { ProcessEnd, ProcessStart } from "@bhatti/contract/guest"
import type { Guest } from "./host.ts"

export async function runInGuest(
  guest: Pick<Guest, "processes">,
  command: Pick<ProcessStart, "argv" | "user" | "timeoutMs">,
  signal?: AbortSignal,
): Promise<ProcessEnd> {
  const process = guest.processes.start({ ...command, onDisconnect: "kill" })
  const kill = () => process.kill("daemon")
  signal?.addEventListener("abort", kill, { once: true })
  try {
    for await (const _ of process.output);
    const outcome = await process.result
    if (outcome.state !== "ended") throw new AppError("unavailable", "the command was left")
    return outcome.ended
  } finally {
    signal?.removeEventListener("abort", kill)
  }
}

/** Runs a command whose pages are then in memory. An image may lack the program, or its own user. */
export async function exercise(guest: Pick<Guest, "processes">, argv: string[]): Promise<void> {
  try {
    await runInGuest(guest, { argv })
  } catch (error) {
    const isNotStarted =
      error instanceof AppError && (error.code === "not_found" || isGuestReason(error.reason))
    if (!isNotStarted) throw error
  }
}
