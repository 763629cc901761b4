/** Restarts, init scripts that run again at each boot, and events of what fails, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Session } from "@bhatti/contract/session"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
})
afterEach(() => own[Symbol.asyncDispose]())

const sandbox = async (name = "dev") => (await own.call("GET", `/sandboxes/${name}`)).body as Sandbox
const sessions = async (name = "dev") =>
  (await own.call("GET", `/sandboxes/${name}/sessions`)).body as Session[]
const eventsOf = async (type: string) =>
  (await own.core.events.list({ userId: null, type }, 100)).map(
    ({ sandboxName, meta }) => ({ sandboxName, ...meta }) as Record<string, unknown>,
  )

test("the init script runs again when the machine boots, not when a stopped one goes on", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", init: "serve" })
  expect(await sandbox()).toMatchObject({ on_boot: true })
  const argv = ["/bin/bash", "-lc", "serve"]
  expect(await sessions()).toMatchObject([{ name: "init", argv }])

  await own.call("POST", "/sandboxes/dev/stop")
  await own.call("POST", "/sandboxes/dev/start")
  expect(await eventsOf("thermal.wake")).toMatchObject([{ how: "memory" }])
  expect(await sessions()).toMatchObject([{ name: "init", argv }])

  expect((await own.call("POST", "/sandboxes/dev/restart")).body).toMatchObject({
    status: "running",
    status_reason: "it was restarted",
  })
  expect(await sessions()).toMatchObject([{ name: "init", argv }])
  expect(await eventsOf("sandbox.restarted")).toMatchObject([{ sandboxName: "dev", by: "user" }])
})

test("with on_boot false it runs at the create only", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", init: "once", on_boot: false })
  expect(await sandbox()).toMatchObject({ on_boot: false })
  expect(await sessions()).toMatchObject([{ name: "init" }])
  await own.call("POST", "/sandboxes/dev/restart")
  expect(await sessions()).toEqual([])
})

test("copies and snapshots of a sandbox run its init script at their boots", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", init: "serve" })
  await own.call("POST", "/sandboxes/batch", { name: "copy", from: "dev", count: 1 })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  await own.call("POST", "/snapshots/kept/resume", { name: "resumed" })
  for (const name of ["copy", "resumed"]) {
    expect(await sandbox(name)).toMatchObject({ on_boot: true })
    await own.call("POST", `/sandboxes/${name}/restart`)
    expect(await sessions(name)).toMatchObject([{ name: "init" }])
  }
})

test("an init script that fails is an event, one that succeeds is none", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", init: "serve" })
  own.host.endInit(0)
  own.host.endInit(7)
  expect(await eventsOf("sandbox.init_failed")).toEqual([
    { sandboxName: "dev", by: "guest", reason: "it exited with 7", exit_code: 7 },
  ])
})

test("what a session has shown is read without a terminal, and one that is not there is told", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", init: "serve" })
  for (const session of ["init", "s1"]) {
    const { status, text } = await own.call("GET", `/sandboxes/dev/sessions/${session}/output`)
    expect([status, text]).toEqual([200, "what it showed\n"])
  }
  expect((await own.call("GET", "/sandboxes/dev/sessions/other/output")).status).toBe(404)
})

test("a machine that does not end is restarted all the same, one of the disk alone too", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  own.host.failAt = "shutdown"
  expect((await own.call("POST", "/sandboxes/dev/restart")).status).toBe(200)
  expect(own.host.running.size).toBe(1)
  own.host.failAt = undefined
  await own.call("POST", "/sandboxes/dev/stop")
  expect((await own.call("POST", "/sandboxes/dev/restart")).status).toBe(200)
  expect(own.host.running.size).toBe(1)
})

const asked = [
  { type: "sandbox.stop_failed", step: "save", call: ["POST", "/sandboxes/dev/stop"] },
  { type: "sandbox.restart_failed", step: "boot", call: ["POST", "/sandboxes/dev/restart"] },
  { type: "sandbox.update_failed", step: "attach", call: ["PATCH", "/sandboxes/dev", { name: "other" }] },
  { type: "sandbox.repair_failed", step: "boot", call: ["POST", "/sandboxes/dev/repair"] },
  {
    type: "snapshot.create_failed",
    step: "capture",
    call: ["POST", "/sandboxes/dev/checkpoint", { name: "kept" }],
  },
  { type: "sandbox.create_failed", step: "clone", call: ["POST", "/sandboxes", { name: "next" }] },
  {
    type: "sandbox.create_failed",
    step: "place",
    call: ["POST", "/sandboxes", { name: "next", from: "dev" }],
  },
] as const
test.each(asked)("$type with its reason, when the host fails at $step", async ({ type, step, call }) => {
  const [method, path, body] = call
  await own.call("POST", "/sandboxes", { name: "dev" })
  own.host.failAt = step
  expect((await own.call(method, path, body)).status).toBe(503)
  own.host.failAt = undefined
  await until("it is recorded", async () => (await eventsOf(type)).length > 0)
  expect(await eventsOf(type)).toMatchObject([{ code: "unavailable", reason: expect.stringMatching(/./) }])
})

test("a port that cannot be published or taken back, and a snapshot that cannot be deleted, leave an event with the reason", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  const fail = () => Promise.reject(new AppError("unavailable", "the disk is full"))
  Object.assign(own.core.store.publishedPorts, { add: fail, addFirst: fail, remove: fail })
  own.host.snapshots.remove = fail
  const refused = [
    await own.call("POST", "/sandboxes/dev/publish", { port: 80 }),
    await own.call("POST", "/sandboxes/dev/publish", { port: 81, alias: "mine" }),
    await own.call("DELETE", "/sandboxes/dev/publish/80"),
    await own.call("DELETE", "/snapshots/kept"),
  ]
  expect(refused.map(({ status }) => status)).toEqual([503, 503, 503, 503])
  const reason = "the disk is full"
  await until("all are recorded", async () => (await eventsOf("snapshot.delete_failed")).length === 1)
  expect(await eventsOf("publish.create_failed")).toMatchObject([
    { sandboxName: "dev", port: 80, reason },
    { sandboxName: "dev", port: 81, reason },
  ])
  expect(await eventsOf("publish.delete_failed")).toMatchObject([{ sandboxName: "dev", port: 80, reason }])
  expect(await eventsOf("snapshot.delete_failed")).toMatchObject([{ snapshot: "kept", reason }])
})

test("what its asker did wrong leaves no event of a failure", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes", { name: "taken" })
  expect((await own.call("PATCH", "/sandboxes/dev", { name: "taken" })).status).toBe(409)
  expect((await own.call("POST", "/sandboxes", { name: "taken" })).status).toBe(409)
  expect(await eventsOf("sandbox.update_failed")).toEqual([])
  expect(await eventsOf("sandbox.create_failed")).toEqual([])
})
