/** How large a terminal is. The runtime asks the system, since the request's number and its way of call differ between systems. */

import { WriteStream } from "node:tty"
import type { TerminalSize } from "../contract/exec.ts"

/** Of the terminal at a descriptor; returns undefined if none is there or it does not know. */
export function terminalSize(fd: number): TerminalSize | undefined {
  // Each asks once, when it is made, and has neither buffers nor listeners before something is written.
  const [cols = 0, rows = 0] = new WriteStream(fd).getWindowSize() as Partial<[number, number]>
  return rows > 0 && cols > 0 ? { rows, cols } : undefined
}
