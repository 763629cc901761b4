/** A bar on standard error for transfers that take a while, at a terminal only. It leaves nothing behind. */

import { isTerminal, type Output } from "../output.ts"
import { bytesText } from "../words.ts"

const showAfterMs = 1000
const redrawMs = 200
const barWidth = 24

export class Progress implements AsyncDisposable {
  readonly #out: Output
  readonly #label: string
  readonly #startMs = performance.now()
  #bytes = 0
  #totalBytes: number | undefined
  #timer: Timer | undefined
  #drawing: Promise<void> = Promise.resolve()
  #isShown = false

  constructor(out: Output, options: { label: string; totalBytes?: number | undefined }) {
    this.#out = out
    this.#label = options.label
    this.#totalBytes = options.totalBytes
    this.#timer = setTimeout(() => void this.#begin(), showAfterMs)
  }

  set totalBytes(bytes: number) {
    this.#totalBytes = bytes
  }

  readonly count = (bytes: number): void => {
    this.#bytes += bytes
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    await this.#drawing
    if (this.#isShown) await this.#put("\r\x1b[K")
  }

  async #begin(): Promise<void> {
    // Where the result goes to the same screen, both would be unreadable.
    if (!(await isTerminal(2)) || this.#timer === undefined) return
    this.#isShown = true
    const draw = () => {
      this.#drawing = this.#drawing.then(() => this.#put(`\r${this.#line()}\x1b[K`))
    }
    this.#timer = setInterval(draw, redrawMs)
    draw()
  }

  #line(): string {
    const bytesPerSecond = (this.#bytes / (performance.now() - this.#startMs)) * 1000
    const rate = `${bytesText(Math.round(bytesPerSecond))}/s`
    const total = this.#totalBytes
    if (total === undefined || total === 0) return `${this.#label}  ${bytesText(this.#bytes)}  ${rate}`
    const part = Math.min(1, this.#bytes / total)
    const filled = Math.round(part * barWidth)
    const bar = "=".repeat(filled).padEnd(barWidth)
    const secondsLeft = bytesPerSecond > 0 ? Math.ceil((total - this.#bytes) / bytesPerSecond) : undefined
    const left = secondsLeft === undefined ? "" : `  ${Math.max(0, secondsLeft)} s left`
    return `${this.#label}  [${bar}] ${Math.floor(part * 100)} % of ${bytesText(total)}  ${rate}${left}`
  }

  async #put(text: string): Promise<void> {
    await this.#out.stderr.write(new TextEncoder().encode(text))
  }
}
