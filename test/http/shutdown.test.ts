/**
 * Saving all sandboxes when the daemon stops, on a fake host: all are tried, within a time, and a second signal
 * hastens.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { saveAll } from "../../src/core/shutdown.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  for (let index = 0; index < 9; index++) await own.call("POST", "/sandboxes", { name: `s${index}` })
  await own.call("POST", "/sandboxes/s0/stop")
})
afterEach(() => own[Symbol.asyncDispose]())

const kinds = async () => (await own.core.store.sandboxes.listOnHost()).map(({ state }) => state.kind)

test("all running ones are written to disk and wake with their memory", async () => {
  expect(await saveAll(own.core, new AbortController().signal)).toEqual({ saved: 8, left: 0 })
  expect(await kinds()).toEqual(Array(9).fill("cold"))
  expect(own.host.running.size).toBe(0)
  await own.call("POST", "/sandboxes/s3/start")
  const events = await own.call("GET", "/events?sandbox=s3&type=thermal.")
  expect(events.body).toMatchObject([
    { type: "thermal.snapshot", meta: { by: "daemon", reason: "the daemon stops" } },
    { type: "thermal.wake", meta: { how: "memory" } },
  ])
})

test("one that cannot be saved runs on and keeps the others from nothing", async () => {
  const { saveSnapshot } = own.host.machines
  let failures = 1
  own.host.machines.saveSnapshot = (...args) =>
    failures-- > 0 ? Promise.reject(new Error("disk full")) : saveSnapshot(...args)
  expect(await saveAll(own.core, new AbortController().signal)).toEqual({ saved: 7, left: 1 })
  expect((await kinds()).filter((kind) => kind === "hot")).toHaveLength(1)
})

test("when the time is over it returns at once, begins nothing more, and what is left runs on", async () => {
  const { saveSnapshot } = own.host.machines
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const hasten = new AbortController()
  let begun = 0
  own.host.machines.saveSnapshot = async (...args) => {
    if (++begun === 4) hasten.abort()
    await released
    return saveSnapshot(...args)
  }
  expect(await saveAll(own.core, hasten.signal)).toEqual({ saved: 0, left: 8 })
  expect(begun).toBe(4)
  expect((await kinds()).filter((kind) => kind === "hot")).toHaveLength(4)
  release()
  await Promise.all(
    (await own.core.store.sandboxes.listOnHost()).map(({ id }) =>
      own.core.turns.take(id, async () => undefined),
    ),
  )
  expect(begun).toBe(4)
})
