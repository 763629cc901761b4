/** Tells a person whose standard input went nowhere: `exec` sends it to the command only with -i. */

import type { Output } from "./output.ts"

export async function tellUnreadInput(out: Output): Promise<void> {
  const count = await unreadBytes()
  if (count === 0) return
  const bytes = count === 1 ? "1 byte" : `${count} bytes`
  await out.talk(
    `bhatti: ${bytes} of standard input did not go to the command; add -i, or </dev/null if that is right`,
  )
}

/** Bytes that wait in a pipe, or a file of which nothing was read. Nothing is taken from either. */
async function unreadBytes(): Promise<number> {
  if (process.platform !== "linux") return 0
  try {
    const stat = await Bun.file(0).stat()
    if (stat.isFile()) return (await isAtStart()) ? stat.size : 0
    if (!stat.isFIFO() && !stat.isSocket()) return 0
    const { waitingBytes } = await import("../lib/posix.ts")
    return waitingBytes(0)
  } catch (error) {
    // It may be closed, or the system may have no such call: then there is no advice to give.
    if (!(error instanceof Error)) throw error
    return 0
  }
}

async function isAtStart(): Promise<boolean> {
  return /^pos:\t0$/m.test(await Bun.file("/proc/self/fdinfo/0").text())
}
