/**
 * Our terminal in raw mode, so that every key goes to the sandbox and every byte of its output to the screen unchanged.
 * It is put back in every way this process can end but SIGKILL.
 *
 * libc does it: the runtime's own raw mode still turns \n into \r\n, which breaks full-screen programs, and loading its
 * standard streams takes 14 ms. Only functions are called that are the same on Linux and macOS, with a fixed number of arguments.
 */

import { dlopen, FFIType, ptr } from "bun:ffi"
import { writeSync } from "node:fs"
import type { TerminalSize } from "../contract/exec.ts"
import { cLibraryOf } from "./c-library.ts"
import { isTerminal } from "./output.ts"
import { ScreenModes } from "./screen-modes.ts"
import { terminalSize } from "./terminal-size.ts"

const libc = dlopen(cLibraryOf(process.platform), {
  tcgetattr: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  tcsetattr: { args: [FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  cfmakeraw: { args: [FFIType.ptr], returns: FFIType.void },
})

/** More than any platform's `struct termios`, which nothing here looks into. */
const termiosBytes = 256
/** Waits until what was written has been shown; the same number on Linux and macOS. */
const TCSADRAIN = 1

/**
 * Of Debian's ncurses-base, which is all that is in a small image. Without a description no full-screen program starts,
 * and what has another name (xterm-kitty, alacritty, foot) understands what xterm does.
 */
const namesKnownInside: ReadonlySet<string> = new Set([
  ...["ansi", "dumb", "linux", "rxvt", "rxvt-unicode", "rxvt-unicode-256color", "screen", "screen-256color"],
  ...["tmux", "tmux-256color", "vt100", "vt220", "xterm", "xterm-256color", "xterm-color"],
])

const sizeWithoutTerminal: TerminalSize = { rows: 24, cols: 80 }

export class Terminal {
  /** Whether keys are typed at a terminal, not read from a pipe. */
  readonly isInput: boolean
  readonly #isOutput: boolean
  readonly #modeBefore = Buffer.alloc(termiosBytes)
  readonly #modeRaw = Buffer.alloc(termiosBytes)
  readonly #screen = new ScreenModes()
  readonly #restore = () => {
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeBefore))
    const undo = this.#screen.undo()
    if (this.#isOutput && undo !== "") writeSync(1, undo)
  }
  /** After a stop from outside, the shell that continues us has its own idea of the terminal. */
  readonly #onContinue = () => {
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeRaw))
    this.#onResize?.()
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
    process.on("SIGCONT", this.#onContinue)
    this.#modeBefore.copy(this.#modeRaw)
    libc.symbols.cfmakeraw(ptr(this.#modeRaw))
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeRaw))
  }

  /** Everything that is shown passes through here, so that leaving can put back what it has switched. */
  readonly watch = (bytes: Uint8Array): void => this.#screen.watch(bytes)

  get size(): TerminalSize {
    return (this.#isOutput ? terminalSize(1) : undefined) ?? sizeWithoutTerminal
  }

  /** What programs in the sandbox may draw with. */
  get name(): string {
    const own = process.env.TERM ?? ""
    return namesKnownInside.has(own) ? own : "xterm-256color"
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
    process.off("SIGCONT", this.#onContinue)
    this.#restore()
  }
}
