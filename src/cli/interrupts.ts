/**
 * Signals while a command runs in a sandbox: Ctrl-C and SIGTERM are forwarded, SIGHUP and SIGQUIT make us exit
 * cleanly.
 *
 *   before it has started ──► we exit 130 or 143 immediately; the daemon kills a command that starts later
 *   1st signal ──► sent to the command, which may take its time to end
 *                    ├── with a user at the terminal: after a while we print how to kill it
 *                    └── without one: after a longer while we kill it
 *   2nd signal ──► KILL ──► we exit 130 or 143, with or without an answer
 */

import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { onSignals, signalExitCodes } from "./signals.ts"

type Forwarded = "SIGINT" | "SIGTERM"
type Times = { noticeMs: number; graceMs: number; killMs: number }

/** Delay until the hint, until the command is killed, and how long the killed command has to report its end. */
const defaultTimes: Times = { noticeMs: 2000, graceMs: 10_000, killMs: 1000 }

export class Interrupts {
  /** Set as soon as a signal has caused the command to be killed. */
  exitCode: number | undefined
  /** Resolves once the command was killed and its end is not worth waiting for. */
  readonly gaveUp: Promise<undefined>

  readonly #run: Pick<ExecStream, "signal" | "hasStarted">
  readonly #isAtKeys: () => Promise<boolean>
  readonly #tell: (words: string) => void
  readonly #times: Times
  readonly #giveUp: () => void
  readonly #listening: Disposable
  #timer: Timer | undefined
  #wasForwarded = false
  #isDisposed = false

  constructor(
    run: Pick<ExecStream, "signal" | "hasStarted">,
    options: {
      /** Tells whether a user can press Ctrl-C again. Called at the first signal. */
      isAtKeys: () => Promise<boolean>
      tell: (words: string) => void
      times?: Times
    },
  ) {
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.gaveUp = promise
    this.#giveUp = () => resolve(undefined)
    this.#run = run
    this.#isAtKeys = options.isAtKeys
    this.#tell = options.tell
    this.#times = options.times ?? defaultTimes
    this.#listening = onSignals(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"], (signal) => {
      if (signal === "SIGINT" || signal === "SIGTERM") this.#receive(signal)
      else this.#leave(signalExitCodes[signal])
    })
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true
    clearTimeout(this.#timer)
    this.#listening[Symbol.dispose]()
  }

  #receive(signal: Forwarded): void {
    if (this.exitCode !== undefined) return this.#giveUp()
    if (!this.#run.hasStarted) return this.#leave(signalExitCodes[signal])
    if (this.#wasForwarded) return this.#kill(signal)
    this.#wasForwarded = true
    this.#run.signal(signal === "SIGINT" ? "INT" : "TERM")
    void this.#waitForEnd(signal)
  }

  async #waitForEnd(signal: Forwarded): Promise<void> {
    const isAtKeys = await this.#isAtKeys()
    if (this.#isDisposed || this.exitCode !== undefined) return
    const { noticeMs, graceMs } = this.#times
    this.#timer = isAtKeys
      ? setTimeout(() => this.#tell("the command is still ending; press Ctrl-C again to kill it"), noticeMs)
      : setTimeout(() => {
          this.#tell(`the command was killed: it had not ended ${graceMs / 1000} s after ${signal}`)
          this.#kill(signal)
        }, graceMs)
  }

  /** The daemon kills the command when our connection closes. */
  #leave(exitCode: number): void {
    this.exitCode = exitCode
    this.#giveUp()
  }

  #kill(signal: Forwarded): void {
    this.exitCode = signalExitCodes[signal]
    this.#run.signal("KILL")
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#giveUp, this.#times.killMs)
  }
}
