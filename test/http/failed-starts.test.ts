/**
 * A sandbox whose starts fail again and again, through the HTTP interface, on a fake host with a clock of the test's
 * own.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { systemClock } from "../../src/core/clock.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
let nowMs = 0
beforeEach(async () => {
  nowMs = systemClock.nowMs()
  own = await openHttpApp({ clock: { ...systemClock, nowMs: () => nowMs } })
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/stop")
  own.host.failAt = "restore"
})
afterEach(() => own[Symbol.asyncDispose]())

const exec = () => own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
const start = (force: boolean) => own.call("POST", "/sandboxes/dev/start", { force })
const why = async () => (await own.call("GET", "/sandboxes/dev/why")).body
const failures = async () =>
  ((await own.call("GET", "/events?type=sandbox.start_failed")).body as { meta: object }[]).map(
    ({ meta }) => meta,
  )

async function failThreeTimes() {
  for (let count = 0; count < 3; count++)
    expect(await exec()).toMatchObject({ status: 503, body: { reason: "wake_failed" } })
}

test("after some failures in a row requests are told the last reason at once, and start nothing", async () => {
  await failThreeTimes()
  expect((await failures()).length).toBe(3)
  for (const refused of [await exec(), await exec(), await start(false)]) {
    expect(refused.headers.get("retry-after")).toBe("5")
    expect([refused.status, refused.body]).toMatchObject([
      503,
      {
        code: "unavailable",
        message: 'sandbox "dev" failed to start 3 times in a row: sandbox "dev" could not be started',
        hint: "it is tried again in 5 s, or at once by a start with force",
        subject: { kind: "failed_starts", sandbox: "dev", seconds: 5 },
        reason: "wake_failed",
        retryable: true,
      },
    ])
  }
  expect((await failures()).length).toBe(3)
})

test("when it has rested it is tried again, and each further failure doubles the rest", async () => {
  await failThreeTimes()
  for (const backOffSec of [5, 10, 20, 40, 60, 60]) {
    nowMs += backOffSec * 1000 - 1
    expect((await exec()).headers.get("retry-after")).toBe("1")
    nowMs += 1
    expect((await exec()).headers.get("retry-after")).toBeNull()
    expect((await exec()).headers.get("retry-after")).not.toBeNull()
  }
  expect((await failures()).length).toBe(9)
})

test("its owner's word starts it at once, and a start that works makes all forgotten", async () => {
  await failThreeTimes()
  expect((await start(true)).body).toMatchObject({ message: 'sandbox "dev" could not be started' })
  own.host.failAt = undefined
  expect((await exec()).status).toBe(503)
  expect((await start(true)).body).toMatchObject({ thermal: "hot" })
  expect(await why()).toMatchObject({ failed_starts: null })
  await own.call("POST", "/sandboxes/dev/stop")
  own.host.failAt = "restore"
  await failThreeTimes()
})

test("why and the events say how often it failed, why, and for how long it rests", async () => {
  await exec()
  expect(await why()).toMatchObject({
    reason: "it was stopped; its memory is on disk and the next request restores it",
    failed_starts: { in_a_row: 1, reason: 'sandbox "dev" could not be started', rest_seconds: 0 },
  })
  await exec()
  await exec()
  nowMs += 2000
  expect(await why()).toMatchObject({
    reason:
      'sandbox "dev" failed to start 3 times in a row: sandbox "dev" could not be started; it is tried again in 3 s, or at once by a start with force',
    failed_starts: { in_a_row: 3, rest_seconds: 3 },
  })
  expect((await failures()).at(-1)).toMatchObject({
    by: "exec",
    reason: 'sandbox "dev" could not be started',
    failures: 3,
    rest_seconds: 5,
  })
})

test("another sandbox is started meanwhile, and one of the same name later begins afresh", async () => {
  await failThreeTimes()
  own.host.failAt = undefined
  await own.call("POST", "/sandboxes", { name: "other" })
  await own.call("POST", "/sandboxes/other/stop")
  expect((await own.call("POST", "/sandboxes/other/exec", { cmd: ["true"] })).status).toBe(200)
  await own.call("DELETE", "/sandboxes/dev")
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/stop")
  expect((await exec()).status).toBe(200)
})

test("a damaged disk is told, nothing is changed, and with the right one put back its memory is as it was", async () => {
  own.host.failAt = undefined
  own.host.misfit = "its memory was made by another QEMU"
  own.host.diskDamage = "the disk sandboxes/sb_1/disk.qcow2 is damaged: it is missing"
  expect((await exec()).body).toMatchObject({ message: own.host.diskDamage, retryable: false })
  expect(await why()).toMatchObject({ failed_starts: { reason: own.host.diskDamage } })
  expect([...own.host.running]).toEqual([])
  own.host.misfit = own.host.diskDamage = undefined
  expect((await exec()).status).toBe(200)
  expect(await why()).toMatchObject({ started_from_disk: null })
})
