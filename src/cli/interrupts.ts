/**
 * Signals while a command runs in a sandbox: Ctrl-C and SIGTERM are passed on, SIGHUP and SIGQUIT end us in good order.
 *
 *   1st signal ──► sent to the command ──► it ends or prints: its own business
 *                                     └──► nothing for a while ─┐
 *   2nd signal ─────────────────────────────────────────────────┴─► KILL ──► we exit 130 or 143, with or without an answer
 */

import type { ExecStream } from "../client/exec-stream.ts"

const reactionMs = 2000
/** How long the killed command has to report its end. */
const killMs = 1000

export class Interrupts {
  /** Set as soon as the command was killed on behalf of a signal. */
  exitCode: number | undefined
  /** Resolves when the command was killed and its end is not worth waiting for. */
  readonly gaveUp: Promise<undefined>

  readonly #run: ExecStream
  readonly #giveUp: () => void
  readonly #onInterrupt = () => this.#receive("INT")
  readonly #onTerminate = () => this.#receive("TERM")
  readonly #onHangup = () => this.#leave(129)
  readonly #onQuit = () => this.#leave(131)
  #timer: Timer | undefined
  #wasForwarded = false

  constructor(run: ExecStream) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.gaveUp = promise
    this.#giveUp = () => resolve(undefined)
    this.#run = run
    process.on("SIGINT", this.#onInterrupt)
    process.on("SIGTERM", this.#onTerminate)
    process.on("SIGHUP", this.#onHangup)
    process.on("SIGQUIT", this.#onQuit)
  }

  /** The command printed something: it is alive and may handle the signal as it likes. */
  noteReaction(): void {
    if (this.exitCode !== undefined || this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    process.off("SIGINT", this.#onInterrupt)
    process.off("SIGTERM", this.#onTerminate)
    process.off("SIGHUP", this.#onHangup)
    process.off("SIGQUIT", this.#onQuit)
  }

  #receive(signal: "INT" | "TERM"): void {
    if (this.exitCode !== undefined) return this.#giveUp()
    if (this.#wasForwarded) return this.#kill(signal)
    this.#wasForwarded = true
    this.#run.signal(signal)
    this.#timer = setTimeout(() => this.#kill(signal), reactionMs)
  }

  /** The daemon kills the command when our connection ends with us. */
  #leave(exitCode: number): void {
    this.exitCode = exitCode
    this.#giveUp()
  }

  #kill(signal: "INT" | "TERM"): void {
    this.exitCode = signal === "INT" ? 130 : 143
    this.#run.signal("KILL")
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#giveUp, killMs)
  }
}
