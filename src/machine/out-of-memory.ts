/** Whether the host's kernel has killed a machine for want of memory, as its log tells where no control group does. */

import type { ProcessIdentity } from "../lib/process-identity.ts"

const answerMs = 2000
const ticksPerSec = 100

/** Whoever may not read the kernel's log learns nothing. */
export async function readKernelLog(): Promise<string> {
  const { stdout } = Bun.spawn(["dmesg"], { timeout: answerMs, stdin: "ignore", stderr: "ignore" })
  return await new Response(stdout).text()
}

/** Pids are used again, so only what was said after the process had started is about it. */
export function wasKilledForMemory(kernelLog: string, process: ProcessIdentity): boolean {
  const killed = /^\[ *([0-9.]+)\] .*out of memory: Killed process ([0-9]+) /gim
  return [...kernelLog.matchAll(killed)].some(
    ([, seconds, pid]) =>
      Number(pid) === process.pid && Number(seconds) >= Math.floor(process.startTicks / ticksPerSec),
  )
}
