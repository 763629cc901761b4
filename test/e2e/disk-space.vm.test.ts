/**
 * The host's disk becomes full, with the default reserve: who writes is paused and goes on, nobody else notices, and
 * nothing is lost. The data directory is a file system of its own, filled by one large file.
 */

import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test"
import { rmSync, statfsSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, patience, until } from "../support/installation.ts"

/** The default of disk_reserve_mb. */
const reserveMib = 1024

let own: Installation
beforeAll(async () => {
  own = await install({ diskMib: 3000 })
  for (const name of ["good", "bad"]) expect((await own.bhatti(["create", "--name", name])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const ballast = () => join(own.dataDir, "ballast")
const makeRoom = () => rmSync(ballast(), { force: true })
beforeEach(makeRoom)

function freeMib(): number {
  const { bavail, bsize } = statfsSync(own.dataDir)
  return Math.floor((bavail * bsize) / 1024 / 1024)
}

/** Leaves that much. */
function fill(leftMib: number): void {
  makeRoom()
  const { exitCode, stderr } = Bun.spawnSync(["fallocate", "-l", `${freeMib() - leftMib}M`, ballast()])
  if (exitCode !== 0) throw new Error(`fallocate: ${stderr}`)
}

const exec = (name: string, ...command: string[]) => own.bhatti(["exec", name, "--", "sh", "-c", ...command])

/** Writes in the background what a later look can check, and says when it is done. */
async function write(name: string, mib: number, { afterSec = 0 } = {}): Promise<void> {
  const copies = `for n in $(seq ${mib}); do cat /workspace/block; done | tee /workspace/big | md5sum | cut -c1-32 >/workspace/sum`
  // Blocks of a file that is overwritten would be used again, and the disk would not grow.
  const script = `rm -f /workspace/done; mv /workspace/big /workspace/before 2>/dev/null; head -c 1M /dev/urandom >/workspace/block; (sleep ${afterSec}; ${copies}; sync; touch /workspace/done) </dev/null >/dev/null 2>&1 &`
  expect((await exec(name, script)).exitCode).toBe(0)
}

async function isWhole(name: string): Promise<boolean> {
  const answer = await exec(
    name,
    "test -e /workspace/done && grep -q ' / ext4 rw' /proc/mounts && echo \"$(cat /workspace/sum)  /workspace/big\" | md5sum -c",
  )
  return answer.exitCode === 0
}

async function show(name: string): Promise<{ held: string | null; status_reason: string | null }> {
  return JSON.parse((await own.bhatti(["inspect", name, "--json"])).stdout)
}

const isHeld = async (name: string) => (await show(name)).held !== null

test("a guest that writes when the host's disk is nearly full is paused before the reserve is used up, others go on, and it goes on when there is room", async () => {
  fill(reserveMib + 32)
  await write("bad", 120)
  await until("it is paused", () => isHeld("bad"))
  expect(freeMib()).toBeGreaterThan(reserveMib / 2)

  expect(await show("bad")).toMatchObject({
    held: "host_disk",
    status_reason: expect.stringContaining("disk"),
  })
  const refused = await exec("bad", "true")
  expect(refused.exitCode).not.toBe(0)
  expect(refused.stderr).toContain("the host's disk is nearly full")
  expect(refused.ms).toBeLessThan(10_000 * patience)
  expect((await own.bhatti(["why", "bad"])).stdout).toContain("the host's disk is nearly full")
  expect((await own.bhatti(["events", "--sandbox", "bad"])).stdout).toContain("sandbox.held")
  const stop = await own.bhatti(["stop", "bad"])
  expect([stop.exitCode, stop.stderr]).toEqual([1, expect.stringContaining("the host's disk is nearly full")])

  // Its neighbour reads, writes a little (at once: written later, it would meet the full disk of the next test).
  expect((await exec("good", "echo fine > /workspace/a && sync && cat /workspace/a")).stdout).toBe("fine\n")
  expect((await show("good")).held).toBeNull()

  makeRoom()
  await until("it goes on", async () => !(await isHeld("bad")))
  await until("all is written", () => isWhole("bad"), { deadlineMs: 60_000 })
  expect((await own.bhatti(["events", "--sandbox", "bad"])).stdout).toContain("sandbox.released")
}, 180_000)

test("a disk that becomes really full, with no daemon to see it, stops who writes and costs no file system, also after the next daemon's start", async () => {
  await write("bad", 120, { afterSec: 3 })
  await own.stopDaemon("SIGKILL")
  fill(40)
  await until("it is full", () => freeMib() < 1, { deadlineMs: 60_000 })
  await own.startDaemon()

  await until("it is known to wait for space", () => isHeld("bad"))
  const refused = await exec("bad", "true")
  expect(refused.stderr).toContain("the host's disk is nearly full")
  expect(refused.ms).toBeLessThan(10_000 * patience)
  expect(await exec("good", "echo fine")).toMatchObject({ stdout: "fine\n", stderr: "" })
  expect((await own.bhatti(["snapshot", "create", "bad", "--name", "no"])).exitCode).not.toBe(0)
  expect((await own.bhatti(["stop", "bad"])).stderr).toContain("the host's disk is nearly full")

  await own.stopDaemon("SIGTERM")
  makeRoom()
  await own.startDaemon()
  await until("it goes on", async () => !(await isHeld("bad")))
  await until("all is written", () => isWhole("bad"), { deadlineMs: 60_000 })
}, 180_000)

test("a stop whose guest finds the disk full with what it has not written out is refused at once, and loses nothing", async () => {
  expect((await own.bhatti(["create", "--name", "dirty"])).exitCode).toBe(0)
  const write = "head -c 30M /dev/urandom >/workspace/big; md5sum </workspace/big"
  const { stdout: sum } = await exec("dirty", write)
  // The database needs a little.
  fill(3)
  const stop = await own.bhatti(["stop", "dirty"])
  expect([stop.exitCode, stop.stderr]).toEqual([1, expect.stringContaining("the host's disk is nearly full")])
  expect(stop.ms).toBeLessThan(8000 * patience)
  makeRoom()
  await until("it goes on", async () => !(await isHeld("dirty")))
  expect((await own.bhatti(["stop", "dirty"])).exitCode).toBe(0)
  expect((await exec("dirty", "md5sum </workspace/big")).stdout).toBe(sum)
  expect((await own.bhatti(["destroy", "dirty", "--yes"])).exitCode).toBe(0)
}, 120_000)

test("a sandbox that waits for space can be destroyed", async () => {
  expect((await own.bhatti(["create", "--name", "doomed"])).exitCode).toBe(0)
  fill(reserveMib + 32)
  await write("doomed", 120)
  await until("it is paused", () => isHeld("doomed"))
  const destroyed = await own.bhatti(["destroy", "doomed", "--yes"])
  expect([destroyed.exitCode, destroyed.stderr]).toEqual([0, ""])
}, 120_000)

test("a guest that writes beyond its owner's quota is paused, and goes on when the quota is raised", async () => {
  const edit = (quota: string) =>
    own.bhatti(["user", "edit", "tester", "--max-disk", quota, "--data-dir", own.dataDir])
  const usedMib = async () => {
    const { stdout } = await own.bhatti(["user", "list", "--json", "--data-dir", own.dataDir])
    const users = JSON.parse(stdout) as { name: string; disk_used_mb: number }[]
    return users.find(({ name }) => name === "tester")?.disk_used_mb ?? 0
  }
  expect((await edit("1G")).exitCode).toBe(0)
  const takenMib = () => {
    const du = Bun.spawnSync([
      ...["du", "--summarize", "--block-size=1M", "--exclude=snapshot"],
      join(own.dataDir, "sandboxes"),
    ])
    return Number.parseInt(du.stdout.toString(), 10)
  }
  // Its saved memory, 20 MB and more, does not count.
  for (const command of [
    ["create", "--name", "asleep"],
    ["stop", "asleep"],
  ])
    expect((await own.bhatti(command)).exitCode).toBe(0)
  await until("it is measured", async () => Math.abs((await usedMib()) - takenMib()) <= 4)
  expect((await own.bhatti(["destroy", "asleep", "--yes"])).exitCode).toBe(0)
  await until("it is measured again", async () => Math.abs((await usedMib()) - takenMib()) <= 4)
  expect((await edit(String((await usedMib()) + 20))).exitCode).toBe(0)
  await write("good", 120)
  await until("it is paused", () => isHeld("good"))
  const refused = await exec("good", "true")
  expect(refused.stderr).toContain("its owner's disk quota is used up")
  expect((await own.bhatti(["create", "--name", "more"])).stderr).toContain("disk quota")
  expect((await edit("0")).exitCode).toBe(0)
  await until("all is written", () => isWhole("good"), { deadlineMs: 60_000 })
}, 120_000)
