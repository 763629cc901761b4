/** A progress bar on standard error for long transfers, at a terminal only. It is erased at the end. */

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
    // If the result goes to the same screen, both would be unreadable.
    if (!(await isTerminal(2)) || this.#timer === undefined) return
    this.#isShown = true
    const { terminalSize } = await import("../terminal-size.ts")
    const draw = () => {
      const columns = terminalSize(2)?.cols ?? 80
      this.#drawing = this.#drawing.then(() => this.#put(`\r${this.#line(columns)}\x1b[K`))
    }
    this.#timer = setInterval(draw, redrawMs)
    draw()
  }

  /** Returns the fullest line that fits; a wrapped line could not be drawn over. */
  #line(columns: number): string {
    const lines = this.#lines()
    return lines.find((line) => Bun.stringWidth(line) < columns) ?? (lines.at(-1) ?? "").slice(0, columns - 1)
  }

  #lines(): string[] {
    const bytesPerSecond = (this.#bytes / (performance.now() - this.#startMs)) * 1000
    const rate = `${bytesText(Math.round(bytesPerSecond))}/s`
    const total = this.#totalBytes
    if (total === undefined || total === 0) {
      const amount = `${bytesText(this.#bytes)}  ${rate}`
      return [`${this.#label}  ${amount}`, amount]
    }
    const part = Math.min(1, this.#bytes / total)
    const filled = Math.round(part * barWidth)
    const bar = "=".repeat(filled).padEnd(barWidth)
    const secondsLeft = bytesPerSecond > 0 ? Math.ceil((total - this.#bytes) / bytesPerSecond) : undefined
    const left = secondsLeft === undefined ? "" : `  ${Math.max(0, secondsLeft)} s left`
    const amount = `${Math.floor(part * 100)} % of ${bytesText(total)}  ${rate}${left}`
    return [`${this.#label}  [${bar}] ${amount}`, `${this.#label}  ${amount}`, amount]
  }

  async #put(text: string): Promise<void> {
    await this.#out.stderr.write(new TextEncoder().encode(text))
  }
}
