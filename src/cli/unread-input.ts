/** Warns a person whose standard input was not used: `exec` sends it to the command only with -i. */

import type { Output } from "./output.ts"

export async function tellUnreadInput(out: Output): Promise<void> {
  const count = await unreadBytes()
  if (count === 0) return
  const bytes = count === 1 ? "1 byte" : `${count} bytes`
  await out.talk(
    `bhatti: ${bytes} of standard input did not go to the command; add -i, or </dev/null if that is right`,
  )
}

/** Returns the number of bytes waiting in a pipe, or of a file that was not read. Consumes none of them. */
async function unreadBytes(): Promise<number> {
  if (process.platform !== "linux") return 0
  try {
    const stat = await Bun.file(0).stat()
    if (stat.isFile()) return (await isAtStart()) ? stat.size : 0
    if (!stat.isFIFO() && !stat.isSocket()) return 0
    const { waitingBytes } = await import("../lib/posix.ts")
    return waitingBytes(0)
  } catch (error) {
    // The input may be closed, or the system may lack the call: then there is no warning.
    if (!(error instanceof Error)) throw error
    return 0
  }
}

async function isAtStart(): Promise<boolean> {
  return /^pos:\t0$/m.test(await Bun.file("/proc/self/fdinfo/0").text())
}
