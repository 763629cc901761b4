/**
 * Our terminal in raw mode, so that every key goes to the sandbox. It is put back in every way this process can end but SIGKILL.
 * Loads the heavy standard streams; only interactive commands import this.
 */

import type { TerminalSize } from "../contract/exec.ts"
import { isTerminal } from "./output.ts"

const sizeWithoutTerminal: TerminalSize = { rows: 24, cols: 80 }

export class Terminal {
  /** Whether keys are typed at a terminal, not read from a pipe. */
  readonly isInput: boolean
  readonly #isOutput: boolean
  #onResize: (() => void) | undefined
  readonly #restore = () => {
    process.stdin.setRawMode(false)
  }

  static async open(): Promise<Terminal> {
    return new Terminal({ isInput: await isTerminal(0), isOutput: await isTerminal(1) })
  }

  private constructor(kind: { isInput: boolean; isOutput: boolean }) {
    this.isInput = kind.isInput
    this.#isOutput = kind.isOutput
    if (!this.isInput) return
    process.on("exit", this.#restore)
    process.stdin.setRawMode(true)
  }

  get size(): TerminalSize {
    if (!this.#isOutput) return sizeWithoutTerminal
    const [cols, rows] = process.stdout.getWindowSize()
    return cols > 0 && rows > 0 ? { rows, cols } : sizeWithoutTerminal
  }

  /** What programs in the sandbox may draw with. */
  get name(): string {
    return process.env.TERM || "xterm-256color"
  }

  onResize(tell: (size: TerminalSize) => void): void {
    if (!this.#isOutput) return
    this.#onResize = () => tell(this.size)
    process.on("SIGWINCH", this.#onResize)
  }

  [Symbol.dispose](): void {
    if (this.#onResize !== undefined) process.off("SIGWINCH", this.#onResize)
    if (!this.isInput) return
    process.off("exit", this.#restore)
    this.#restore()
  }
}
