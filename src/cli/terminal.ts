/**
 * Our terminal in raw mode, so that every key goes to the sandbox and every byte of its output to the screen
 * unchanged. It is restored however this process ends, except by SIGKILL.
 *
 * Uses libc: the runtime's own raw mode still turns \n into \r\n, which breaks full-screen programs, and loading
 * its standard streams takes 14 ms. Calls only functions that are the same on Linux and macOS, with a fixed number
 * of arguments.
 */

import { dlopen, FFIType, ptr } from "bun:ffi"
import { writeSync } from "node:fs"
import type { TerminalSize } from "@bhatti/contract/exec"
import { cLibraryOf } from "./c-library.ts"
import { isTerminal } from "./output.ts"
import { ScreenModes } from "./screen-modes.ts"
import { onSignals } from "./signals.ts"
import { terminalSize } from "./terminal-size.ts"

const libc = dlopen(cLibraryOf(process.platform), {
  tcgetattr: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  tcsetattr: { args: [FFIType.i32, FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  cfmakeraw: { args: [FFIType.ptr], returns: FFIType.void },
})

/** Larger than any platform's `struct termios`, whose contents are opaque here. */
const termiosBytes = 256
/** Waits until the written output has been transmitted; the same number on Linux and macOS. */
const TCSADRAIN = 1
/** The same, and drops what was typed and not read. */
const TCSAFLUSH = 2

/**
 * The terminal descriptions in Debian's ncurses-base, the only ones in a small image. Without a description no
 * full-screen program starts, and terminals with other names (xterm-kitty, alacritty, foot) understand xterm's
 * sequences.
 */
const namesKnownInside: ReadonlySet<string> = new Set([
  ...["ansi", "dumb", "linux", "rxvt", "rxvt-unicode", "rxvt-unicode-256color", "screen", "screen-256color"],
  ...["tmux", "tmux-256color", "vt100", "vt220", "xterm", "xterm-256color", "xterm-color"],
])

const sizeWithoutTerminal: TerminalSize = { rows: 24, cols: 80 }

/** Drops what was typed while nobody read it. */
export function dropTypedKeys(): void {
  const mode = Buffer.alloc(termiosBytes)
  if (libc.symbols.tcgetattr(0, ptr(mode)) === 0) libc.symbols.tcsetattr(0, TCSAFLUSH, ptr(mode))
}

export class Terminal {
  /** True if keys are typed at a terminal, not read from a pipe. */
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
  /** After a stop from outside, the shell that continues us may have changed the terminal's settings. */
  readonly #onContinue = () => {
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeRaw))
    this.#onResize?.()
  }
  #onResize: (() => void) | undefined
  readonly #listening = new DisposableStack()

  static async open(): Promise<Terminal> {
    return new Terminal({ isInput: await isTerminal(0), isOutput: await isTerminal(1) })
  }

  private constructor(kind: { isInput: boolean; isOutput: boolean }) {
    this.isInput = kind.isInput && libc.symbols.tcgetattr(0, ptr(this.#modeBefore)) === 0
    this.#isOutput = kind.isOutput
    if (!this.isInput) return
    process.on("exit", this.#restore)
    this.#listening.use(onSignals(["SIGCONT"], this.#onContinue))
    this.#modeBefore.copy(this.#modeRaw)
    libc.symbols.cfmakeraw(ptr(this.#modeRaw))
    libc.symbols.tcsetattr(0, TCSADRAIN, ptr(this.#modeRaw))
  }

  /** Sees all displayed output, so that leaving can restore the modes it has switched. */
  readonly watch = (bytes: Uint8Array): void => this.#screen.watch(bytes)

  get size(): TerminalSize {
    return (this.#isOutput ? terminalSize(1) : undefined) ?? sizeWithoutTerminal
  }

  /** The terminal name for programs in the sandbox. */
  get name(): string {
    const own = process.env.TERM ?? ""
    return namesKnownInside.has(own) ? own : "xterm-256color"
  }

  onResize(tell: (size: TerminalSize) => void): void {
    if (!this.#isOutput) return
    this.#onResize = () => tell(this.size)
    this.#listening.use(onSignals(["SIGWINCH"], this.#onResize))
  }

  [Symbol.dispose](): void {
    this.#listening.dispose()
    if (!this.isInput) return
    process.off("exit", this.#restore)
    this.#restore()
  }
}
