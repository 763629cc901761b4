/** A host that runs short of disk space, through the HTTP interface on a fake host that has as much as a test says. */

import { afterEach, beforeEach, expect, test } from "bun:test"
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
const machine = () => [...own.host.running.keys()][0] ?? 0
const refusal = {
  code: "unavailable",
  message: 'sandbox "dev" is paused: the host\'s disk is nearly full',
  hint: expect.stringContaining("goes on by itself"),
  retryable: true,
}

/** Writes while space is short, and is seen doing it. */
async function becomesHeld(): Promise<void> {
  own.host.freeMibNow = 1000
  own.host.overlaysMib.set(id, 50)
  await own.core.space.tick()
  await until("it is held", async () => (await own.core.space.heldOf(id as never)) !== undefined)
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
    await own.call("GET", "/sandboxes/dev/files?path=/a"),
    await own.call("GET", "/sandboxes/dev/sessions"),
  ]
  for (const answer of refused) {
    expect([answer.status, answer.body]).toMatchObject([503, refusal])
    expect(answer.headers.get("retry-after")).toBe("10")
  }
  const events = (await own.call("GET", "/events?type=sandbox.held")).body as { meta: object }[]
  expect(events.map(({ meta }) => meta)).toEqual([{ by: "daemon", reason: "the host's disk is nearly full" }])
})

test("it is not idle while it is held: it becomes neither warm nor cold, and starts anew when it goes on", async () => {
  await becomesHeld()
  nowMs += 10_000_000
  await own.core.thermal.tick(nowMs)
  expect(await show()).toMatchObject({ status: "running", held: "host_disk" })
  own.host.freeMibNow = 5000
  await own.core.space.tick()
  await until("it goes on", () => own.core.space.heldOf(id as never) === undefined)
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
