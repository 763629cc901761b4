/** Going on after a lost connection: keys of commands, how long to try, and how often. */

import { AppError } from "@bhatti/contract/errors"

export type Reconnection = {
  /** How long a lost connection is retried, in seconds; 0: not at all. Default: 60. */
  forSec?: number
  /** Called when a connection is lost and being retried, and when the command goes on. */
  onChange?: (state: "lost" | "back") => void
}

const forSecDefault = 60
const delayMsMin = 100
const delayMsMax = 5000
const keyBytes = 16

/** Losses that the daemon itself reports while the command runs on in its sandbox. */
const lossesToRetry: ReadonlySet<string> = new Set(["daemon_stopped", "channel_lost"])

export function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(keyBytes))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
}

export function isLossToRetry(error: AppError): boolean {
  return error.reason !== undefined && lossesToRetry.has(error.reason)
}

/** The attempts after one loss. */
export class Attempts {
  readonly #forMs: number
  readonly #onChange: NonNullable<Reconnection["onChange"]>
  #lostAtMs: number | undefined
  #count = 0

  constructor({ forSec = forSecDefault, onChange = () => {} }: Reconnection) {
    this.#forMs = forSec * 1000
    this.#onChange = onChange
  }

  get isAllowed(): boolean {
    return this.#forMs > 0
  }

  /** True from a loss until the command goes on. */
  get isLost(): boolean {
    return this.#lostAtMs !== undefined
  }

  /** Waits for the next attempt. Returns false when the time is over. */
  async next(): Promise<boolean> {
    if (this.#lostAtMs === undefined) {
      this.#lostAtMs = performance.now()
      this.#onChange("lost")
    }
    const longest = Math.min(delayMsMax, delayMsMin * 2 ** this.#count++)
    const delayMs = longest * (0.5 + Math.random() / 2)
    if (performance.now() - this.#lostAtMs + delayMs > this.#forMs) return false
    await new Promise((resolve) => setTimeout(resolve, delayMs))
    return true
  }

  succeeded(): void {
    if (this.#lostAtMs === undefined) return
    this.#lostAtMs = undefined
    this.#count = 0
    this.#onChange("back")
  }
}

export function unknownFate(cause: unknown): AppError {
  const why = cause instanceof AppError ? `: ${cause.message}` : ""
  return new AppError("unavailable", `the connection to the daemon was lost while the command ran${why}`, {
    cause,
    hint: "it is unknown whether the command has ended; it is killed a minute after its client is gone",
    reason: "fate_unknown",
    retryable: false,
  })
}
