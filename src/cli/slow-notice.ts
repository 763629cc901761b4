/** The message of a command that takes unexpectedly long: after a second, on standard error. */

import type { Output } from "./output.ts"

const noticeAfterMs = 1000

export function noticeIfSlow(out: Output, work: () => string | Promise<string | undefined>): Disposable {
  let isOver = false
  const timer = setTimeout(async () => {
    const words = await work()
    if (words !== undefined && !isOver) await out.talk(words)
  }, noticeAfterMs)
  return {
    [Symbol.dispose]() {
      isOver = true
      clearTimeout(timer)
    },
  }
}
