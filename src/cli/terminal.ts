/**
 * Our terminal in raw mode, so that every key goes to the sandbox and every byte of its output to the screen unchanged.
 * It is put back in every way this process can end but SIGKILL.
 *
 * libc does it: the runtime's own raw mode still turns \n into \r\n, which breaks full-screen programs, and loading its
 * standard streams takes 14 ms.
 */

import { dlopen, FFIType, ptr } from "bun:ffi"
import type { TerminalSize } from "../contract/exec.ts"
import { isTerminal } from "./output.ts"

const libc = dlopen("libc.so.6", {
  tcgetattr: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  tcsetattr: { args: [FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  cfmakeraw: { args: [FFIType.ptr], returns: FFIType.void },
  ioctl: { args: [FFIType.i32, FFIType.u64, FFIType.ptr], returns: FFIType.i32 },
})

/** More than any platform's `struct termios`, which nothing here looks into. */
const termiosBytes = 256
/** Waits until what was written has been shown. */
const TCSADRAIN = 1
const TIOCGWINSZ = 0x5413

const sizeWithoutTerminal: TerminalSize = { rows: 24, cols: 80 }

export class Terminal {
  /** Whether keys are typed at a terminal, not read from a pipe. */
  readonly isInput: boolean
  readonly #isOutput: boolean
  readonly #modeBefore = Buffer.alloc(termiosBytes)
  readonly #restore = () => {
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeBefore))
  }
  #onResize: (() => void) | undefined

  static async open(): Promise<Terminal> {
    return new Terminal({ isInput: await isTerminal(0), isOutput: await isTerminal(1) })
  }

  private constructor(kind: { isInput: boolean; isOutput: boolean }) {
    this.isInput = kind.isInput && libc.symbols.tcgetattr(0, ptr(this.#modeBefore)) === 0
    this.#isOutput = kind.isOutput
    if (!this.isInput) return
    process.on("exit", this.#restore)
    const raw = Buffer.from(this.#modeBefore)
    libc.symbols.cfmakeraw(ptr(raw))
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(raw))
  }

  get size(): TerminalSize {
    const winsize = new Uint16Array(4)
    if (!this.#isOutput || libc.symbols.ioctl(1, TIOCGWINSZ, ptr(winsize)) !== 0) return sizeWithoutTerminal
    const [rows = 0, cols = 0] = winsize
    return rows > 0 && cols > 0 ? { rows, cols } : sizeWithoutTerminal
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
