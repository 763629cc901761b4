/** A host with hostile users: their processes look like machines and name servers, or have the user ids of machines. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { type Decoys, setState, startDecoys, wordsOf } from "../support/decoys.ts"
import { type Installation, install } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ isForked: true })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function run(...args: string[]): Promise<string> {
  const { stdout, stderr, exitCode } = await own.bhatti(args)
  expect([exitCode, exitCode === 0 ? "" : stderr]).toEqual([0, ""])
  return stdout
}

const machine = (): number => {
  const [pid = 0, ...more] = own.machines()
  expect(more).toEqual([])
  return pid
}

const uidOf = (pid: number) => Number(/^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1])

/** A sandbox whose machine is younger than the decoys with its words, as whoever looks for it comes to them first. */
async function amongDecoys(name: string): Promise<Decoys> {
  await run("create", "--name", name)
  const decoys = await startDecoys(wordsOf(machine()))
  await run("stop", name)
  await run("exec", name, "--", "sh", "-c", "echo kept >/dev/shm/memory")
  return decoys
}

test("a machine is found again among other users' processes with its words, and is the one that destroy ends", async () => {
  await using decoys = await amongDecoys("dev")
  const pid = machine()
  await own.stopDaemon("SIGKILL")
  setState(own, "dev", { kind: "waking", fromSnapshot: false })
  await own.startDaemon()
  expect(await run("exec", "dev", "--", "cat", "/dev/shm/memory")).toBe("kept\n")
  expect(machine()).toBe(pid)
  await run("destroy", "-y", "dev")
  expect(own.machines()).toEqual([])
  expect(decoys.living()).toEqual(decoys.all)
}, 300_000)

test.each(["creating", "destroying", "cold"])(
  "what a daemon that died has left of a sandbox that was %s is ended, and nothing of another user",
  async (kind) => {
    await using decoys = await amongDecoys("dev")
    await own.stopDaemon("SIGKILL")
    setState(own, "dev", kind === "cold" ? { kind, hasSnapshot: false, reason: null } : { kind })
    await own.startDaemon()
    expect(own.machines()).toEqual([])
    expect(decoys.living()).toEqual(decoys.all)
    if (kind === "cold") await run("destroy", "-y", "dev")
  },
  300_000,
)

test("a user id that any process has is no machine's, neither a new one's nor one's that wakes", async () => {
  const uidBase = Number(
    /^uid_base: (\d+)/m.exec(readFileSync(join(own.dataDir, "config.yaml"), "utf8"))?.[1],
  )
  const occupy = (slot: number) =>
    Bun.spawn(["setpriv", `--reuid=${uidBase + slot}`, "--clear-groups", "--", "sleep", "600"])
  const first = occupy(1)
  try {
    await run("create", "--name", "dev")
    // Further ids may be passed over: ended machines keep theirs until their parent has noticed.
    const slot = uidOf(machine()) - uidBase
    expect(slot).toBeGreaterThan(1)
    await run("stop", "dev")
    const second = occupy(slot)
    try {
      const refused = await own.bhatti(["exec", "dev", "--", "true"])
      expect([refused.exitCode, own.machines()]).toEqual([expect.any(Number), []])
      expect(refused.exitCode).not.toBe(0)
      expect(own.daemonLog()).toContain(`user id ${uidBase + slot} is in use by process ${second.pid}`)
      expect(second.exitCode).toBeNull()
    } finally {
      second.kill("SIGKILL")
      await second.exited
    }
    expect(await run("exec", "dev", "--", "echo", "again")).toBe("again\n")
    expect(first.exitCode).toBeNull()
  } finally {
    first.kill("SIGKILL")
    await first.exited
  }
}, 300_000)
