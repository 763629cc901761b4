/**
 * Ctrl-C and SIGTERM during an operation that the daemon completes without us: prints that, and then the signal
 * ends the process as usual. Operations that are rolled back instead are in `making.ts`.
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
