/** Whether a client takes what it is sent fast enough to go on with it. Facts and the time in, decision out. */

/** So many bytes in each window; the kernel's buffers are emptied in steps of up to a megabyte, so a window is long. */
export type TakingPace = { windowMs: number; bytesMin: number }

/** For an answer that holds something others wait for. */
export const downloadPace: TakingPace = { windowMs: 60_000, bytesMin: 256 * 1024 }
/** For an answer that is whole: any progress will do. */
export const wholeAnswerPace: TakingPace = { windowMs: 60_000, bytesMin: 1 }

export class Taking {
  readonly #pace: TakingPace
  #sinceMs: number
  #bytesBefore: number

  /** `bytes` counts all that the client has taken so far. */
  constructor(pace: TakingPace, now: { ms: number; bytes: number }) {
    this.#pace = pace
    this.#sinceMs = now.ms
    this.#bytesBefore = now.bytes
  }

  /** To be asked several times a window. A client that we keep waiting is never too slow. */
  isTooSlow(now: { ms: number; bytes: number; isWaitedFor: boolean }): boolean {
    if (now.ms - this.#sinceMs <= this.#pace.windowMs) return false
    if (now.isWaitedFor && now.bytes - this.#bytesBefore < this.#pace.bytesMin) return true
    this.#sinceMs = now.ms
    this.#bytesBefore = now.bytes
    return false
  }
}
