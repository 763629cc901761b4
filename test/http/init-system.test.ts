/** The init of an image: when it is started, and what is refused, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
})
afterEach(() => own[Symbol.asyncDispose]())

const init = { guest_path: "/sbin/init", content: "", mode: "0755" }
const create = async (name: string, more: object = {}) =>
  own.call("POST", "/sandboxes", { name, files: [init], ...more })
const shown = async (name: string) => (await own.call("GET", `/sandboxes/${name}`)).body as Sandbox
const inits = () => own.host.initsStarted

test("it is started when the create or the image asks for it, at each boot again, and a copy has its source's", async () => {
  await create("dev", { init_system: true })
  expect([(await shown("dev")).init_system, inits()]).toEqual([true, 1])
  await own.call("POST", "/sandboxes/dev/stop")
  await create("copy", { from: "dev", files: [] })
  expect([(await shown("copy")).init_system, inits()]).toEqual([true, 1])
  await own.call("POST", "/sandboxes/copy/restart")
  expect(inits()).toBe(2)
  await create("plain")
  expect([(await shown("plain")).init_system, inits()]).toEqual([false, 2])
  own.host.imageHasInit = true
  await create("usual")
  await create("without", { init_system: false })
  expect([(await shown("usual")).init_system, (await shown("without")).init_system, inits()]).toEqual([
    true,
    false,
    3,
  ])
})

test("without an init in the image a create fails and leaves nothing, and a boot goes on with an event", async () => {
  const refused = await create("dev", { init_system: true, files: [] })
  expect(refused).toMatchObject({ status: 404, body: { reason: "no_program" } })
  expect(own.host.running.size).toBe(0)
  await create("dev", { init_system: true })
  own.host.failAt = "init system"
  const restarted = await own.call("POST", "/sandboxes/dev/restart")
  expect(restarted).toMatchObject({ status: 200, body: { status: "running" } })
  const failed = await own.core.events.list({ userId: null, type: "sandbox.init_system_failed" }, 10)
  expect(failed).toMatchObject([{ sandboxName: "dev" }])
})

test("beside a start command, or for a copy, it is refused", async () => {
  const start = await create("dev", { init_system: true, start_command: "serve" })
  expect([start.status, start.body]).toMatchObject([400, { error: expect.stringContaining("start command") }])
  await create("dev")
  expect((await create("copy", { from: "dev", init_system: true, files: [] })).status).toBe(400)
})
