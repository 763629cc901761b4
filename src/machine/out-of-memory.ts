/**
 * Tells from the host's kernel log whether the kernel killed a machine for lack of memory. Used where no control
 * group reports it.
 */

import type { ProcessIdentity } from "../lib/process-identity.ts"

const answerMs = 2000
const ticksPerSec = 100

/** Returns an empty log if the kernel's log cannot be read. */
export async function readKernelLog(): Promise<string> {
  const { stdout } = Bun.spawn(["dmesg"], { timeout: answerMs, stdin: "ignore", stderr: "ignore" })
  return await new Response(stdout).text()
}

/** Pids are reused, so only lines logged after the process started are about it. */
export function wasKilledForMemory(kernelLog: string, process: ProcessIdentity): boolean {
  const killed = /^\[ *([0-9.]+)\] .*out of memory: Killed process ([0-9]+) /gim
  return [...kernelLog.matchAll(killed)].some(
    ([, seconds, pid]) =>
      Number(pid) === process.pid && Number(seconds) >= Math.floor(process.startTicks / ticksPerSec),
  )
}
