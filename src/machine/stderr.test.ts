/** QEMU's standard error in a pipe of its own, with a shell in QEMU's place. */

import { afterAll, expect, test } from "bun:test"
import { closeSync } from "node:fs"
import { until } from "../../test/support/installation.ts"
import { hostBootId, startTicks } from "../lib/process-identity.ts"
import { makeStderrPipe, readStderr, reopenStderr, StderrPipes } from "./stderr.ts"

const children: Bun.Subprocess[] = []
afterAll(() => {
  for (const { pid } of children) endSession(pid)
})

/** With what it has left in the background; it may have ended. */
function endSession(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL")
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
  }
}

/** Holds both ends of its pipe, at the numbers that QEMU has them at. */
function start(script: string) {
  const pipe = makeStderrPipe()
  const unused = Array.from({ length: 12 }, () => "ignore" as const)
  const child = Bun.spawn(["bash", "-c", script], {
    stdio: ["ignore", "ignore", pipe.writeFd, ...unused, pipe.readFd],
    detached: true,
  })
  children.push(child)
  closeSync(pipe.writeFd)
  const identity = { pid: child.pid, startTicks: startTicks(child.pid) ?? 0, bootId: hostBootId }
  return { child, identity, readFd: pipe.readFd }
}

const flood = 'while :; do echo "virtio: bogus descriptor or out of resources" >&2; done'

test("a machine that complains without end is held up by nobody, and 64 KiB of it are kept at most", async () => {
  const { child, readFd } = start(`${flood} 2>/dev/null & ${flood}`)
  closeSync(readFd)
  // Nobody has ever read; it goes on all the same.
  const cpuTicks = () => startTicks(child.pid)
  expect(cpuTicks()).toBeDefined()
  const words = new StderrPipes()
  const identity = { pid: child.pid, startTicks: startTicks(child.pid) ?? 0, bootId: hostBootId }
  words.listen(identity)
  await until("something is heard", () => words.lastOf(identity).length > 0)
  expect(words.lastOf(identity).length).toBeLessThanOrEqual(8192)
  words.forget(identity)
  expect(child.exitCode).toBeNull()
})

test("the last words of one that has ended are there, and those of the pipe's first 64 KiB are not in their way", async () => {
  const { child, identity, readFd } = start(
    "for n in $(seq 4000); do echo noise-$n >&2; done; read -t 0.1 <&1; echo last words >&2",
  )
  const words = new StderrPipes()
  words.listen(identity, readFd)
  closeSync(readFd)
  await until("it has said it", () => words.lastOf(identity).endsWith("last words\n"))
  await child.exited
  expect(words.lastOf(identity)).toEndWith("last words\n")
  words.forget(identity)
  expect(words.lastOf(identity)).toBe("")
})

test("a machine that boots does not tell that the memory it was given cannot be sized", async () => {
  const { child, readFd } = start("exec >&2; echo before; echo ftruncate: Invalid argument; echo last words")
  await child.exited
  const pipe = reopenStderr(readFd)
  closeSync(readFd)
  expect(readStderr(pipe)?.toString()).toBe("before\nlast words\n")
  closeSync(pipe)
})

test("one that makes its own end of the pipe wait, or puts another file there, does not make the reader wait", async () => {
  const pipe = makeStderrPipe()
  const reader = reopenStderr(pipe.readFd)
  expect(readStderr(reader)?.length).toBe(0)
  for (const fd of [pipe.readFd, pipe.writeFd]) closeSync(fd)
  expect(readStderr(reader)).toBeUndefined()
  closeSync(reader)

  const other = start("exec 15</dev/zero; sleep 60")
  closeSync(other.readFd)
  const words = new StderrPipes()
  await until("it has put it there", () => {
    words.listen(other.identity)
    return words.lastOf(other.identity) === ""
  })
})
