/** A host that runs short of disk space, through the HTTP interface on a fake host that has as much as a test says. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { backUp } from "../../src/core/backup.ts"
import { systemClock } from "../../src/core/clock.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let nowMs = 0
let id = ""
beforeEach(async () => {
  nowMs = systemClock.nowMs()
  own = await openHttpApp({ clock: { ...systemClock, nowMs: () => nowMs } })
  const { body } = await own.call("POST", "/sandboxes", { name: "dev" })
  ;({ id } = body as { id: string })
  await own.core.space.tick()
})
afterEach(() => own[Symbol.asyncDispose]())

const show = async () => (await own.call("GET", "/sandboxes/dev")).body
const exec = () => own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
const limit = (mib: number) => own.core.store.users.edit("alice", { maxDiskMib: mib })
const uses = async (mib: number) => {
  own.host.overlaysMib.set(id, mib)
  await own.core.space.tick()
}
const heldNow = async () => ((await show()) as { held: string | null }).held
const isHeld = async () => (await heldNow()) !== null
const machine = () => [...own.host.running.keys()][0] ?? 0
const refusal = {
  code: "unavailable",
  message: 'sandbox "dev" is paused: the host\'s disk is nearly full',
  hint: expect.stringContaining("resumes when there is space again"),
  retryable: true,
}

/** Writes while space is short, and is seen doing it. */
async function becomesHeld(): Promise<void> {
  own.host.freeMibNow = 1000
  own.host.overlaysMib.set(id, 50)
  await own.core.space.tick()
  await until("it is held", isHeld)
}

test("who writes while space is short is held: it stands still, is shown so, and whatever is asked of it has the reason at once", async () => {
  await becomesHeld()
  expect(own.host.halts.get(machine())).toBe("paused")
  expect(await show()).toMatchObject({
    status: "running",
    thermal: "warm",
    held: "host_disk",
    status_reason: "paused: the host's disk is nearly full",
  })
  expect((await own.call("GET", "/sandboxes/dev/why")).body).toMatchObject({
    thermal: "warm",
    held: "host_disk",
    reason: expect.stringContaining("the host's disk is nearly full"),
  })
  const refused = [
    await exec(),
    await own.call("POST", "/sandboxes/dev/stop"),
    await own.call("POST", "/sandboxes/dev/start", { force: true }),
    await own.call("POST", "/sandboxes/dev/restart"),
    await own.call("GET", "/sandboxes/dev/files?path=/a"),
    await own.call("GET", "/sandboxes/dev/sessions"),
  ]
  for (const answer of refused) {
    expect([answer.status, answer.body]).toMatchObject([503, refusal])
    expect(answer.headers.get("retry-after")).toBe("10")
  }
  const events = (await own.call("GET", "/events?type=sandbox.held")).body as { meta: object }[]
  const reason = "the host's disk is nearly full"
  expect(events.map(({ meta }) => meta)).toEqual([{ by: "daemon", cause: "host_disk_full", reason }])
})

test("it is not idle while it is held: it becomes neither warm nor cold, and starts anew when it goes on", async () => {
  await becomesHeld()
  nowMs += 10_000_000
  await own.core.thermal.tick(nowMs)
  expect(await show()).toMatchObject({ status: "running", held: "host_disk" })
  own.host.freeMibNow = 5000
  await own.core.space.tick()
  await until("it goes on", async () => !(await isHeld()))
  await own.core.thermal.tick(nowMs)
  expect(await show()).toMatchObject({ thermal: "hot", held: null })
})

test("a request when there is room does not wait for the next look", async () => {
  await becomesHeld()
  own.host.freeMibNow = 1024 + 128
  expect((await exec()).status).toBe(200)
  expect(own.host.halts.has(machine())).toBe(false)
  expect(await show()).toMatchObject({ thermal: "hot", held: null })
  const events = (await own.call("GET", "/events?type=sandbox.released")).body as object[]
  expect(events.length).toBe(1)
})

test("one that QEMU has stopped for want of space is held, whatever is free, and can be destroyed", async () => {
  own.host.halts.set(machine(), "disk_full")
  own.host.freeMibNow = 1030
  await own.core.space.tick()
  expect([(await exec()).status, await show()]).toMatchObject([503, { held: "host_disk" }])
  expect((await own.call("DELETE", "/sandboxes/dev")).status).toBe(200)
  expect(own.host.running.size).toBe(0)
})

test("one that does not write goes on, and so does one that is paused because it is idle", async () => {
  own.host.freeMibNow = 100
  await own.core.space.tick()
  await own.core.space.tick()
  expect((await exec()).status).toBe(200)
  expect(await show()).toMatchObject({ held: null })
})

const quotaRefusal = (text: string) => [
  429,
  { code: "limit_exceeded", message: expect.stringContaining(text) },
]

test("what creates, copies and snapshots would take beyond the quota is refused, and the rest is made", async () => {
  await limit(100)
  await uses(60)
  const fork = (name: string) => own.call("POST", "/sandboxes", { name, from: "dev" })
  const refused = [await fork("copy"), await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })]
  for (const { status, body } of refused)
    expect([status, body]).toMatchObject(
      quotaRefusal("your disk quota is 100 MB, of which 60 MB are used, and 60 MB more are needed"),
    )
  expect((await own.call("POST", "/sandboxes", { name: "new" })).status).toBe(201)
  expect((await own.core.store.users.listForOperator())[0]).toMatchObject({
    maxDiskMib: 100,
    diskUsedMib: 61,
  })

  await limit(0)
  expect((await fork("copy")).status).toBe(201)
})

test("copies at the same time do not all get the last of the quota", async () => {
  await limit(100)
  await uses(30)
  const answers = await Promise.all(
    ["one", "two", "three", "four"].map((name) => own.call("POST", "/sandboxes", { name, from: "dev" })),
  )
  expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 429, 429])
})

test("who grows beyond the quota is held, its owner's others go on, and so does another user's", async () => {
  await own.call("POST", "/sandboxes", { name: "calm" })
  await limit(100)
  await uses(60)
  await uses(120)
  await until("it is held", async () => (await heldNow()) === "disk_quota")
  expect(await show()).toMatchObject({
    held: "disk_quota",
    status_reason: "paused: its owner's disk quota is used up",
  })
  const { status, body } = await exec()
  expect([status, body]).toMatchObject(quotaRefusal('"dev" is paused: its owner\'s disk quota is used up'))
  expect(body).toMatchObject({ subject: { kind: "disk_quota", sandbox: "dev" } })
  expect((await own.call("POST", "/sandboxes/calm/exec", { cmd: ["true"] })).status).toBe(200)
  expect((await own.call("POST", "/sandboxes", { name: "more" })).status).toBe(429)

  await limit(200)
  await own.core.space.tick()
  await until("it goes on", async () => !(await isHeld()))
  expect((await exec()).status).toBe(200)
})

test("its owner may start it to remove something inside, until it has grown a little more", async () => {
  await limit(100)
  await uses(60)
  await uses(120)
  await until("it is held", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
  await uses(120.5)
  expect((await exec()).status).toBe(200)
  await uses(122)
  await until("it is held again", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
  await uses(186)
  await until("it is held for good", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(429)
})

test("its owner may start it however far it was beyond the quota when it was held", async () => {
  await limit(100)
  await uses(60)
  await uses(400)
  await until("it is held", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
  // Its journal, while it removes something.
  await uses(400.5)
  expect((await exec()).status).toBe(200)
  await uses(90)
  expect(await show()).toMatchObject({ held: null })
})

test("a stop and a start give no further grace", async () => {
  await limit(100)
  await uses(60)
  await uses(120)
  await until("it is held", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
  expect((await own.call("POST", "/sandboxes/dev/stop")).status).toBe(200)
  await uses(160)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
  await uses(160)
  await uses(190)
  await until("it is held again", isHeld)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(429)
})

test("with the quota taken away, who was held for it goes on", async () => {
  await limit(100)
  await uses(60)
  await uses(120)
  await until("it is held", isHeld)
  await limit(0)
  await own.core.space.tick()
  await until("it goes on", async () => !(await isHeld()))
})

test("a backup keeps the reserve while it goes on: what does not fit any more is told and left out", async () => {
  for (const name of ["second", "third"])
    expect((await own.call("POST", "/sandboxes", { name })).status).toBe(201)
  const { memory_mb } = (await show()) as { memory_mb: number }
  const partMib = memory_mb + 1
  const reserveMib = own.core.settings.diskReserveMib
  own.host.backupPartMib = partMib
  // Each takes its copy and the copy of that.
  own.host.freeMibNow = reserveMib + 3 * partMib
  const directory = mkdtempSync("/tmp/bhatti-backup-")
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rmSync(directory, { recursive: true }))
  const { sandboxes, failed } = await backUp(own.core, {
    directory,
    version: "1",
    signal: new AbortController().signal,
    report() {},
  })
  expect(sandboxes).toBe(2)
  expect(failed).toEqual([
    { what: expect.stringContaining("sandbox third"), reason: expect.stringContaining("are free") },
  ])
  expect(own.host.freeMibNow).toBeGreaterThanOrEqual(reserveMib)
})

test("a machine that goes on writing while it is held is stopped anew, then ended, and its owner is told why", async () => {
  await becomesHeld()
  await uses(50)
  const pid = machine()
  own.host.halts.delete(pid)
  await uses(70)
  await until("it is stopped anew", () => own.host.halts.get(pid) === "paused")
  await uses(75)
  expect(own.host.running.has(pid)).toBe(true)
  await uses(95)
  await until("it is ended", () => !own.host.running.has(pid))
  const ends = async () =>
    (await own.call("GET", "/events?type=sandbox.ended")).body as { meta: { reason: string } }[]
  await until("that is told", async () => (await ends()).length === 1)
  const reason = "it was paused because disk space ran out, but kept writing"
  expect((await ends())[0]?.meta).toMatchObject({ by: "daemon", reason })
  expect(await show()).toMatchObject({ status: "stopped", held: null })
})

test("so is one that does not answer when it is told to stand still, once its disk shows that it does not", async () => {
  own.host.machines.pause = async () => {
    throw new AppError("unavailable", "machine monitor: no answer")
  }
  await becomesHeld()
  const pid = machine()
  for (const mib of [50, 60, 80]) await uses(mib)
  await until("its turn is over", () => own.core.turns.take(id as never, async () => true))
  expect(own.host.running.has(pid)).toBe(true)
  await uses(100)
  await until("it is ended", () => !own.host.running.has(pid))
})

test("one that writes only while it is let go on is never ended", async () => {
  const pid = machine()
  for (const mib of [50, 150, 250, 350]) {
    own.host.freeMibNow = 1000
    await uses(mib)
    await until("it is held", isHeld)
    await uses(mib)
    own.host.freeMibNow = 5000
    await own.core.space.tick()
    await until("it goes on", async () => !(await isHeld()))
  }
  expect(own.host.running.has(pid)).toBe(true)
})
