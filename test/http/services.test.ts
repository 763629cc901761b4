/** Services of a sandbox: when its guest gets them, what is refused, and what their failures say, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Sandbox, Why } from "@bhatti/contract/sandbox"
import type { ServiceState } from "@bhatti/contract/services"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
})
afterEach(() => own[Symbol.asyncDispose]())

const db = { name: "db", command: "redis-server", restart: "on-failure" }
const web = { name: "web", command: "npm start", after: ["db"], user: "root", cwd: "/srv" }
const create = async (name: string, more: object = {}) => own.call("POST", "/sandboxes", { name, ...more })
const services = async (name: string) =>
  (await own.call("GET", `/sandboxes/${name}/services`)).body as ServiceState[]
const eventsOf = async (type: string) => own.core.events.list({ userId: null, type }, 100)

test("they run after a create, a wake and a boot, and copies have them", async () => {
  expect((await create("dev", { services: [db, web] })).status).toBe(201)
  const running = [
    { name: "db", command: "redis-server", state: "running", restart: "on-failure" },
    { name: "web", command: "npm start", state: "running", restart: "always" },
  ]
  expect(await services("dev")).toMatchObject(running)
  await own.call("POST", "/sandboxes/dev/stop")
  expect(await services("dev")).toMatchObject(running)
  await create("copy", { from: "dev" })
  for (const name of ["dev", "copy"]) {
    await own.call("POST", `/sandboxes/${name}/restart`)
    expect(await services(name)).toMatchObject(running)
    const { body } = await own.call("GET", `/sandboxes/${name}`)
    expect((body as Sandbox).services).toEqual([
      { ...db, restart: "on-failure", after: [], user: null, cwd: null },
      { ...web, restart: "always" },
    ])
  }
  await create("plain")
  expect(await services("plain")).toEqual([])
})

test("those of the image run too, unless the create has another of that name", async () => {
  const ofImage = { user: null, cwd: null, restart: "always" as const, after: [] }
  own.host.imageServices = [
    { ...ofImage, name: "sshd", command: "sshd -D" },
    { ...ofImage, name: "db", command: "postgres" },
  ]
  await create("dev", { services: [db, web] })
  expect((await services("dev")).map(({ command }) => command)).toEqual([
    "sshd -D",
    "redis-server",
    "npm start",
  ])
})

test("they are stopped, started and restarted; one that does not exist is told", async () => {
  await create("dev", { services: [db] })
  const control = async (service: string, action: string) =>
    own.call("POST", `/sandboxes/dev/services/${service}`, { action })
  expect((await control("db", "stop")).body).toMatchObject({ name: "db", state: "stopped" })
  expect((await control("db", "start")).body).toMatchObject({ name: "db", state: "running" })
  expect((await control("other", "restart")).status).toBe(404)
})

test("a service whose program is missing fails the create, and is an event at a boot", async () => {
  const { status, body } = await create("dev", { services: [{ name: "db", command: "missing" }] })
  expect([status, body]).toMatchObject([
    400,
    { error: 'service "db" cannot be started: no program "missing"', reason: "no_program" },
  ])
  expect(own.host.running.size).toBe(0)
  // The init script may install it.
  const later = await create("later", { services: [{ name: "db", command: "missing" }], init: "make it" })
  expect(later.status).toBe(201)
  await create("dev", { services: [db] })
  own.host.failAt = "services"
  await own.call("POST", "/sandboxes/dev/restart")
  expect(await eventsOf("sandbox.service_failing")).toMatchObject([{ sandboxName: "dev" }])
})

test("an edit adds, replaces and removes services at once, also of a stopped sandbox, and boots keep it", async () => {
  await create("dev", { services: [db, { name: "old", command: "old" }] })
  await own.call("POST", "/sandboxes/dev/stop")
  const edited = await own.call("PATCH", "/sandboxes/dev", {
    services_add: [web, { ...db, command: "postgres" }],
    services_remove: ["old"],
  })
  expect(edited).toMatchObject({ status: 200, body: { status: "running" } })
  const running = [{ name: "db", command: "postgres" }, { name: "web" }]
  expect(await services("dev")).toMatchObject(running)
  await own.call("POST", "/sandboxes/dev/restart")
  expect(await services("dev")).toMatchObject(running)
  expect(await eventsOf("sandbox.updated")).toMatchObject([{ meta: { changed: "services" } }])
})

test("an edit of services that is refused changes nothing", async () => {
  await create("dev", { services: [db, web] })
  const before = (await own.call("GET", "/sandboxes/dev")).body
  const x = { name: "x", command: "missing" }
  for (const [bad, words] of [
    [
      { services_add: [x] },
      { error: 'a service cannot be started: no program "missing"', reason: "no_program" },
    ],
    [{ services_remove: ["nosuch"] }, { error: 'no service "nosuch"' }],
    [{ services_remove: ["db"] }, { error: 'service "web" starts after "db", which does not exist' }],
    [{ services_add: [db], services_remove: ["db"] }, { error: 'service "db" is both set and removed' }],
    [{ services_add: [{ ...db, after: ["web"] }] }, { error: /in a circle/ }],
  ] as const) {
    const { status, body } = await own.call("PATCH", "/sandboxes/dev", { ...bad, name: "other" })
    expect([bad, status]).toEqual([bad, 400])
    expect(body).toMatchObject({
      ...words,
      error: words.error instanceof RegExp ? expect.stringMatching(words.error) : words.error,
    })
    expect((await own.call("GET", "/sandboxes/dev")).body).toEqual(before)
    expect(await services("dev")).toMatchObject([{ command: "redis-server" }, { command: "npm start" }])
  }
})

test("an edit of services that the guest makes but does not confirm leaves the former ones there too", async () => {
  await create("dev", { services: [db] })
  const before = (await own.call("GET", "/sandboxes/dev")).body
  own.host.failAt = "services answer"
  const { status } = await own.call("PATCH", "/sandboxes/dev", { services_add: [web] })
  own.host.failAt = undefined
  expect(status).toBe(503)
  expect((await own.call("GET", "/sandboxes/dev")).body).toEqual(before)
  expect((await services("dev")).map(({ name }) => name)).toEqual(["db"])
})

test("an edit whose new name is taken does not touch the services", async () => {
  await create("dev", { services: [db] })
  await create("taken")
  own.host.failAt = "services"
  const { status } = await own.call("PATCH", "/sandboxes/dev", { name: "taken", services_add: [web] })
  expect(status).toBe(409)
})

test("a stop that a user asks for is that user's, in the events and for why", async () => {
  await create("dev", { services: [db] })
  await own.call("POST", "/sandboxes/dev/services/db", { action: "stop" })
  const stopped = { type: "sandbox.service_stopped", meta: { by: "user", user: "alice", service: "db" } }
  const why = (await own.call("GET", "/sandboxes/dev/why")).body as Why
  expect(why.ends).toMatchObject([stopped])
})

test("one that keeps failing is an event, and named by why", async () => {
  await create("dev", { services: [db] })
  own.host.failService("db", 3)
  const why = (await own.call("GET", "/sandboxes/dev/why")).body as Why
  expect(why.failing_services).toEqual([{ name: "db", restarts: 5, reason: "it exited with 3" }])
  expect(await eventsOf("sandbox.service_failing")).toMatchObject([
    { sandboxName: "dev", meta: { service: "db", restarts: 5, reason: "it exited with 3" } },
  ])
})

test("one that was stopped after it kept failing is not named as failing", async () => {
  await create("dev", { services: [db] })
  own.host.failService("db", 3)
  await own.call("POST", "/sandboxes/dev/services/db", { action: "stop" })
  const why = (await own.call("GET", "/sandboxes/dev/why")).body as Why
  expect(why.failing_services).toEqual([])
})

test("bad names, unknown and circular orders, two of one name, and services beside a source are refused", async () => {
  await create("dev")
  const one = (name: string, more: object = {}) => ({ name, command: "true", ...more })
  for (const bad of [
    { services: [one("init")] },
    { services: [one("main")] },
    { services: [one("p1")] },
    { services: [one("a b")] },
    { services: [one("a"), one("a")] },
    { services: [one("a", { after: ["b"] })] },
    { services: [one("a", { after: ["b"] }), one("b", { after: ["a"] })] },
    { services: [one("a", { restart: "sometimes" })] },
    { services: [one("a", { command: "" })] },
    { services: Array.from({ length: 17 }, (_, index) => one(`a${index}`)) },
    { from: "dev", services: [one("a")] },
  ]) {
    const { status } = await create("bad", bad)
    expect([bad, status]).toEqual([bad, 400])
  }
})
