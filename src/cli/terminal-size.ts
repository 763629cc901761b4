/**
 * The size of a terminal. The runtime queries it, since the ioctl's number and calling convention differ between
 * systems.
 */

import { WriteStream } from "node:tty"
import type { TerminalSize } from "@bhatti/contract/exec"

/**
 * Returns the size of the terminal at a descriptor, or undefined if there is no terminal or it does not know its
 * size.
 */
export function terminalSize(fd: number): TerminalSize | undefined {
  // Each object queries the size once, when it is created, and has no buffers or listeners until the first write.
  const [cols = 0, rows = 0] = new WriteStream(fd).getWindowSize() as Partial<[number, number]>
  return rows > 0 && cols > 0 ? { rows, cols } : undefined
}
