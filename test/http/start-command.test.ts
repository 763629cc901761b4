/** Programs that run in a template when it is frozen: whose it is, what starts them, and what fails, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import type { Session } from "@bhatti/contract/session"
import { makeRoomForOwn } from "../../src/core/clean-up.ts"
import { OperatorUsers } from "../../src/core/users.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp({ pool: { sizeMax: 2, memoryMibMax: 1000 } })
})
afterEach(() => own[Symbol.asyncDispose]())

const served = { start_command: "serve", ready_command: "true" }
const create = async (name: string, more: object = {}, as?: string) =>
  own.call("POST", "/sandboxes", { name, ...more }, as)
const sessions = async (name: string) =>
  (await own.call("GET", `/sandboxes/${name}/sessions`)).body as Session[]
const eventsOf = async (type: string) => own.core.events.list({ userId: null, type }, 100)
const templatesMade = async () => (await eventsOf("template.made")).length

test("a clone has the command running, shows it, and runs it again at each boot; so do copies", async () => {
  expect((await create("dev", served)).status).toBe(201)
  const running = [{ name: "main", argv: ["/bin/sh", "-c", "serve"], running: true }]
  expect(await sessions("dev")).toMatchObject(running)
  expect((await own.call("GET", "/sandboxes/dev")).body).toMatchObject(served)
  await create("copy", { from: "dev" })
  for (const name of ["dev", "copy"]) {
    await own.call("POST", `/sandboxes/${name}/restart`)
    expect(await sessions(name)).toMatchObject(running)
  }
  expect((await own.call("GET", "/sandboxes/copy")).body).toMatchObject(served)
  await create("plain")
  expect(await sessions("plain")).toEqual([])
  expect((await own.call("GET", "/sandboxes/plain")).body).toMatchObject({ start_command: null })
})

test("the template is made once for the same two commands of one account, and is nobody else's", async () => {
  await create("one", served)
  await create("two", served)
  expect(await templatesMade()).toBe(1)
  await create("other", { ...served, ready_command: "echo" })
  await create("plain")
  expect(await templatesMade()).toBe(3)
  const { key } = await new OperatorUsers(own.core.store).create({ name: "bea", maxSandboxes: 9 })
  expect((await create("theirs", served, key)).status).toBe(201)
  expect(await templatesMade()).toBe(4)
})

test("the image's own start command runs where a create names none, in a template that serves everybody", async () => {
  own.host.imagePrograms = { start: "database", ready: "true" }
  await create("db")
  expect(await sessions("db")).toMatchObject([{ name: "main", argv: ["/bin/sh", "-c", "database"] }])
  for (const name of ["db-2", "site", "site-2"]) await create(name, name.startsWith("site") ? served : {})
  expect(await sessions("site")).toMatchObject([{ argv: ["/bin/sh", "-c", "serve"] }])
  expect(own.core.pool.templateIds).toHaveLength(1)
})

test("unused templates of one account's commands give way to another; those in use, and all others, stay", async () => {
  await create("plain")
  await create("used", served)
  for (let index = 0; index < limits.ownTemplatesMax + 2; index++) {
    await create(`dev-${index}`, { start_command: `serve ${index}` })
    await own.call("DELETE", `/sandboxes/dev-${index}`)
  }
  const ids = async () => (await own.core.host.templates.measure()).length
  const before = await ids()
  expect(before).toBe(2 + limits.ownTemplatesMax)
  const owner = (await own.core.store.sandboxes.listOnHost())[0]?.userId ?? ""
  await makeRoomForOwn(own.core, "somebody else")
  expect(await ids()).toBe(before)
  await makeRoomForOwn(own.core, owner)
  // The plain one, the used one, and one less than the limit, for the one to come.
  expect(await ids()).toBe(2 + limits.ownTemplatesMax - 1)
})

test("a failed hook is an event, and the sandbox runs", async () => {
  own.host.failedHooks = [{ hook: "10-keys", reason: "it exited with 3", output: "no key" }]
  expect((await create("dev")).status).toBe(201)
  await create("copy", { from: "dev" })
  expect(await eventsOf("sandbox.hook_failed")).toMatchObject([
    {
      sandboxName: "dev",
      meta: { by: "guest", hook: "10-keys", reason: "it exited with 3", output: "no key" },
    },
    { sandboxName: "copy", meta: { hook: "10-keys" } },
  ])
})

test("a clone whose programs cannot go on is not made", async () => {
  own.host.failAt = "start clone"
  expect((await create("dev", served)).status).toBe(503)
  expect(own.host.running.size).toBe(0)
})

test("a ready command alone, an empty one, and one beside a source are refused", async () => {
  await create("dev")
  for (const more of [{ ready_command: "true" }, { start_command: "" }, { from: "dev", ...served }])
    expect((await create("bad", more)).status).toBe(400)
})
