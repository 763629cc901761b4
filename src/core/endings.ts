/**
 * The reasons why channels to guests ended: on a channel itself a stop, a destroy and a machine that died look alike.
 * The reason of an end on purpose is told before the channel is closed, any other when the daemon has found out.
 */

import { AppError, type LossReason, lossReasons } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Clock } from "./clock.ts"
import type { Fate, Guest } from "./host.ts"

/** With the name of the user whose request it was, or advice if nobody has asked for it. */
export type Ending = { cause: LossReason; by?: string; hint?: string }

/** The words for what the loss interrupted, and for what becomes of it if the sandbox was stopped. */
type During = { during: string; ifStopped?: string | undefined }

/** Finding out takes a second, unless the sandbox's turn is taken. */
const findOutMs = 10_000

type Open = {
  record: Pick<SandboxRecord, "id" | "name" | "imageConfig" | "imageName" | "imageShownAs">
  told: PromiseWithResolvers<Ending>
}

export class Endings {
  readonly #clock: Clock
  /** The guests whose end is still to be told. */
  readonly #open = new Map<SandboxRecord["id"], Open>()
  readonly #known = new WeakMap<Guest, Open>()

  /** Clients of commands, to be told when the daemon stops. */
  readonly #clients = new Set<() => void>()
  #isStopping = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** The sandbox has this channel now. The end of a former one was no end of its machine. */
  begin(record: Open["record"], guest: Guest): void {
    this.tell(record.id, { cause: "channel_lost" })
    const open = { record, told: Promise.withResolvers<Ending>() }
    this.#open.set(record.id, open)
    this.#known.set(guest, open)
  }

  /** The first reason counts: a channel that is closed on purpose ends for that reason only. */
  tell(id: SandboxRecord["id"], ending: Ending): void {
    this.#open.get(id)?.told.resolve(ending)
    this.#open.delete(id)
  }

  /** The sandbox that a guest belongs to, or did. */
  sandboxOf(guest: Guest): Open["record"] | undefined {
    return this.#known.get(guest)?.record
  }

  /** Calls `leave` when the daemon stops, also if it does already. Dispose of the result when the client is gone. */
  onDaemonStop(leave: () => void): Disposable {
    if (this.#isStopping) leave()
    this.#clients.add(leave)
    return { [Symbol.dispose]: () => this.#clients.delete(leave) }
  }

  /** Sends the clients of commands away, with the reason. Returns how many there are. */
  stopDaemon(): number {
    this.#isStopping = true
    const clients = [...this.#clients]
    for (const leave of clients) leave()
    return clients.length
  }

  stopError(guest: Guest, during: string): AppError {
    const record = this.#known.get(guest)?.record ?? { name: "" }
    return endedError(record, { cause: "daemon_stopped" }, { during })
  }

  /** Returns the error with the reason, if the guest's channel was lost. Other errors are returned as they are. */
  async explain(guest: Guest, error: unknown, { during, ifStopped }: During): Promise<unknown> {
    const known = this.#known.get(guest)
    if (!(error instanceof AppError) || error.reason !== "channel_lost" || !known) return error
    const late = Promise.withResolvers<Ending>()
    const alarm = this.#clock.after(findOutMs, () => late.resolve({ cause: "channel_lost" }))
    const ending = await Promise.race([known.told.promise, late.promise])
    alarm.cancel()
    const hint = (ending.cause === "stopped" ? ifStopped : undefined) ?? ending.hint
    return endedError(known.record, ending, { during, cause: error, hint })
  }
}

export function endedError(
  { name }: Pick<SandboxRecord, "name">,
  { cause: reason, by }: Ending,
  { during, cause, hint }: { during: string; cause?: unknown; hint?: string | undefined },
): AppError {
  const what = reason === "daemon_stopped" ? "the daemon stopped" : `the sandbox "${name}" ${endText[reason]}`
  return new AppError("unavailable", `${what} ${during}`, {
    cause,
    hint,
    reason,
    subject: { kind: "ended_sandbox", sandbox: name, ...(by !== undefined && { by }) },
    retryable: false,
  })
}

const endText: Readonly<Record<Exclude<LossReason, "daemon_stopped">, string>> = {
  destroyed: "was destroyed",
  stopped: "was stopped",
  restarted: "was restarted",
  machine_killed: "lost its machine, which was killed",
  machine_lost: "lost its machine",
  host_out_of_memory: "lost its machine, for which the host had no memory,",
  host_restarted: "lost its machine when the host restarted",
  host_disk_full: "lost its machine, since the host's disk was full,",
  guest_poweroff: "was powered off inside",
  guest_reboot: "was rebooted inside",
  guest_panic: "lost its machine, whose kernel panicked,",
  agent_failed: "lost its machine, whose agent failed,",
  init_ended: "lost its machine, whose init ended,",
  unresponsive: "did not answer any more and was ended",
  channel_lost: "lost its connection to the daemon",
}

export function isLossReason(reason: string | undefined): reason is LossReason {
  return lossReasons.some((one) => one === reason)
}

export const lossOfFate: Readonly<Record<Fate["how"], LossReason>> = {
  running: "unresponsive",
  out_of_memory: "host_out_of_memory",
  host_restart: "host_restarted",
  killed: "machine_killed",
  poweroff: "guest_poweroff",
  reboot: "guest_reboot",
  panic: "guest_panic",
  agent: "agent_failed",
  init: "init_ended",
}
