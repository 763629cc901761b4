/**
 * Ctrl-C and SIGTERM while the daemon does what it finishes whether or not somebody waits: that is said, and then the
 * signal ends us as it would have. What is taken back instead is in `making.ts`.
 */

import type { Output } from "./output.ts"

const signals = ["SIGINT", "SIGTERM"] as const

export function sayWhenLeft(out: Output, words: string): Disposable {
  const listeners = signals.map((signal) => {
    const listener = async () => {
      off()
      await out.talk(`not waited for: ${words}`)
      process.kill(process.pid, signal)
    }
    process.on(signal, listener)
    return { signal, listener }
  })
  const off = () => {
    for (const { signal, listener } of listeners) process.off(signal, listener)
  }
  return { [Symbol.dispose]: off }
}
