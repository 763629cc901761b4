/** Decides whether a client reads its answer fast enough. Facts and the time in, decision out. */

/** Minimum bytes per window; the kernel's buffers empty in steps of up to a megabyte, so a window is long. */
export type ReadPace = { windowMs: number; bytesMin: number }

/** For an answer that holds a resource others wait for. */
export const downloadPace: ReadPace = { windowMs: 60_000, bytesMin: 256 * 1024 }
/** For a complete answer: any progress is enough. */
export const wholeAnswerPace: ReadPace = { windowMs: 60_000, bytesMin: 1 }

export class ReadPaceCheck {
  readonly #pace: ReadPace
  #sinceMs: number
  #bytesBefore: number

  /** `bytes` is the total that the client has read so far. */
  constructor(pace: ReadPace, now: { ms: number; bytes: number }) {
    this.#pace = pace
    this.#sinceMs = now.ms
    this.#bytesBefore = now.bytes
  }

  /** Call it several times per window. A client that waits for us is never too slow. */
  isTooSlow(now: { ms: number; bytes: number; isWaitedFor: boolean }): boolean {
    if (now.ms - this.#sinceMs <= this.#pace.windowMs) return false
    if (now.isWaitedFor && now.bytes - this.#bytesBefore < this.#pace.bytesMin) return true
    this.#sinceMs = now.ms
    this.#bytesBefore = now.bytes
    return false
  }
}
