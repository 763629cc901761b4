/** A sandbox that is kept hot runs again when the daemon starts, on a fake host, unless its owner has stopped it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { wakeKeptHot } from "../../src/core/kept-hot.ts"
import { pauseSandbox } from "../../src/core/power.ts"
import { reconcile } from "../../src/core/reconcile.ts"
import { saveAll } from "../../src/core/shutdown.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  for (const name of ["kept", "other"]) {
    await own.call("POST", "/sandboxes", { name, keep_hot: name === "kept" })
  }
})
afterEach(() => own[Symbol.asyncDispose]())

const save = () => saveAll(own.core, new AbortController().signal)
const startAgain = async () => {
  await (await reconcile(own.core)).settled
  await wakeKeptHot(own.core)
}
const kindOf = async (name: string) =>
  (await own.core.store.sandboxes.listOnHost()).find((one) => one.name === name)?.state.kind
const call = async (method: string, path: string, body?: unknown) =>
  expect((await own.call(method, path, body)).status).toBe(200)

test("what the daemon has saved runs again, and what is not kept hot does not", async () => {
  await save()
  expect([await kindOf("kept"), await kindOf("other")]).toEqual(["cold", "cold"])
  await startAgain()
  expect([await kindOf("kept"), await kindOf("other")]).toEqual(["hot", "cold"])
  expect((await own.call("GET", "/events?sandbox=kept&type=thermal.wake")).body).toMatchObject([
    { meta: { by: "keep_hot" } },
  ])
})

test("what its owner has stopped stays stopped", async () => {
  await call("POST", "/sandboxes/kept/stop")
  await startAgain()
  expect(await kindOf("kept")).toBe("cold")
})

test("what was stopped already stays so too once its owner says stop", async () => {
  await save()
  await call("POST", "/sandboxes/kept/stop")
  await startAgain()
  expect(await kindOf("kept")).toBe("cold")
})

test("a stop holds until somebody uses it", async () => {
  await call("POST", "/sandboxes/kept/stop")
  await call("POST", "/sandboxes/kept/exec", { cmd: ["true"] })
  await save()
  await startAgain()
  expect(await kindOf("kept")).toBe("hot")
})

test("a stop that was finished when the daemon died is one", async () => {
  await call("POST", "/sandboxes/kept/stop")
  const record = (await own.core.store.sandboxes.listOnHost()).find(({ name }) => name === "kept")
  if (!record) throw new Error("no sandbox")
  const process = { pid: 1, startTicks: 1, bootId: "fake" }
  await own.core.store.sandboxes.setState(record.id, {
    kind: "stopping",
    machine: { process, memoryBase: "template" },
    isWanted: true,
  })
  await startAgain()
  expect(await kindOf("kept")).toBe("cold")
})

test("a stop that comes while the others are woken is not undone", async () => {
  await own.call("POST", "/sandboxes", { name: "late", keep_hot: true })
  await save()
  const { start } = own.host.machines
  let stopping: Promise<void> | undefined
  own.host.machines.start = (...given) => {
    stopping ??= call("POST", "/sandboxes/late/stop")
    return stopping.then(() => start(...given))
  }
  await startAgain()
  expect([await kindOf("kept"), await kindOf("late")]).toEqual(["hot", "cold"])
})

test("what was paused when the daemon started again runs, with an event, and why names no request", async () => {
  const [record] = (await own.core.store.sandboxes.listOnHost()).filter(({ name }) => name === "other")
  if (!record) throw new Error("no sandbox")
  await own.core.turns.take(record.id, () => pauseSandbox(own.core, record))
  expect(await kindOf("other")).toBe("warm")
  own.core.guests.delete(record.id)
  own.host.askedAtMs = performance.now()
  await startAgain()
  expect(await kindOf("other")).toBe("hot")
  expect((await own.call("GET", "/events?sandbox=other&type=thermal.wake")).body).toMatchObject([
    { meta: { by: "daemon", from: "warm", how: "resumed", reason: "the daemon connected to it again" } },
  ])
  const why = async () => (await own.call("GET", "/sandboxes/other/why")).body
  expect(await why()).toMatchObject({ reason: "the daemon connected to it again recently", last_touch: null })
  await call("POST", "/sandboxes/other/exec", { cmd: ["true"] })
  expect(await why()).toMatchObject({ reason: "it had a request recently", last_touch: { what: "exec" } })
})
