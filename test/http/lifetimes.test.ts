/** Times to live through the API, on a fake host with clocks of the test's own. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { Event } from "@bhatti/contract/event"
import { Sandbox, Why } from "@bhatti/contract/sandbox"
import { systemClock } from "../../src/core/clock.ts"
import type { CoreSettings } from "../../src/core/core.ts"
import { OperatorUsers } from "../../src/core/users.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let hostMs: number
let dayMs: number
const defaults = { ttlMs: 0, onTtl: "pause", stoppedRetentionMs: 0, users: {} } as const

async function open(lifetimes: Partial<CoreSettings["lifetimes"]> = {}): Promise<void> {
  hostMs = 1000
  dayMs = 1_700_000_000_000
  const clock = {
    ...systemClock,
    unixMs: () => dayMs,
    sinceBoot: () => ({ bootId: "boot", ms: hostMs }),
  }
  own = await openHttpApp({
    clock,
    lifetimes: { ...defaults, warningMs: 60_000, graceMs: 30_000, ...lifetimes },
  })
}

beforeEach(() => open())
afterEach(() => own[Symbol.asyncDispose]())

async function create(body: object): Promise<Sandbox> {
  return Sandbox.parse((await own.call("POST", "/sandboxes", { name: "dev", ...body })).body)
}

/** So much time passes, and the loop has its turn. */
async function later(seconds: number): Promise<void> {
  hostMs += seconds * 1000
  dayMs += seconds * 1000
  await own.core.lifetimes.tick()
  await own.core.lifetimes.idle()
}

const look = async () =>
  (await own.call("GET", "/sandboxes/dev")).body as Partial<Sandbox> & { code?: string }
const why = async () => Why.parse((await own.call("GET", "/sandboxes/dev/why")).body)

async function events(): Promise<string[]> {
  const { body } = await own.call("GET", "/events")
  const all = Event.array()
    .parse(body)
    .filter(({ type }) => /lifetime|destroyed|stopped|updated/.test(type))
  return all.map(({ type, meta }) => [type, ...(meta["action"] ? [meta["action"]] : [])].join(" "))
}

test("it is announced, and at its end destroyed, with events and a reason that stays", async () => {
  const made = await create({ ttl: 7200, on_ttl: "destroy" })
  expect(made).toMatchObject({
    ttl: 7200,
    on_ttl: "destroy",
    ends_at: new Date(dayMs + 7_200_000).toISOString(),
  })
  await later(7139)
  expect(await events()).toEqual([])
  expect((await why()).lifetime).toMatchObject({
    ends_in_seconds: 61,
    action: "destroy",
    reason: "ttl",
    warned: false,
  })
  await later(1)
  expect(await events()).toEqual(["lifetime.ending destroy"])
  expect((await why()).lifetime).toMatchObject({ ends_in_seconds: 60, warned: true })
  await later(59)
  expect(await look()).toMatchObject({ status: "running" })
  await later(1)
  expect(await look()).toMatchObject({ code: "not_found" })
  expect(await events()).toEqual(["lifetime.ending destroy", "lifetime.ended destroy", "sandbox.destroyed"])
  expect(await why()).toMatchObject({ reason: "it was destroyed: its time to live is over" })
})

test("a pause saves it, and the next use gives it a new lifetime", async () => {
  await create({ ttl: 100 })
  await later(50)
  await later(50)
  expect(await look()).toMatchObject({ status: "stopped", ends_at: null })
  expect((await why()).lifetime).toEqual({
    ...{ ends_at: null, ends_in_seconds: null, action: "pause", reason: "ttl", warned: true },
  })
  await later(1000)
  expect(await look()).toMatchObject({ status: "stopped" })
  await own.call("POST", "/sandboxes/dev/start", {})
  await later(1)
  expect(await look()).toMatchObject({ status: "running", ends_at: new Date(dayMs + 100_000).toISOString() })
})

test("what was paused at its end gets a new time with a destroy, and ends", async () => {
  await create({ ttl: 600, on_ttl: "pause" })
  await later(540)
  await later(60)
  expect(await look()).toMatchObject({ status: "stopped" })
  await own.call("PATCH", "/sandboxes/dev", { on_ttl: "destroy" })
  await own.call("POST", "/sandboxes/dev/start")
  await later(540)
  await later(60)
  expect(await look()).toMatchObject({ code: "not_found" })
})

test("what is kept only has its events, once", async () => {
  await create({ ttl: 10, on_ttl: "keep" })
  await later(5)
  await later(5)
  await later(60)
  expect(await look()).toMatchObject({ status: "running", ends_at: null })
  expect(await events()).toEqual(["lifetime.ending keep", "lifetime.ended keep"])
})

test("an edit gives more time from now on, takes the end away, or changes it, and then it is announced again", async () => {
  await create({ ttl: 100, on_ttl: "destroy" })
  await later(50)
  await own.call("PATCH", "/sandboxes/dev", { ttl: 100 })
  await later(99)
  expect(await look()).toMatchObject({ status: "running" })
  await own.call("PATCH", "/sandboxes/dev", { on_ttl: "pause" })
  await later(1)
  await later(49)
  expect(await look()).toMatchObject({ status: "running" })
  await own.call("PATCH", "/sandboxes/dev", { ttl: 0 })
  await later(1_000_000)
  expect(await look()).toMatchObject({ status: "running", ttl: null, ends_at: null })
  expect((await why()).lifetime).toBeNull()
})

test("a command that runs is told first: a client that is connected gets a notice and the grace", async () => {
  await create({ ttl: 10, on_ttl: "destroy" })
  const socket = new WebSocket(`${own.url.replace("http", "ws")}/sandboxes/dev/exec/ws`, {
    headers: { authorization: `Bearer ${own.key}` },
  } as never)
  const messages: Record<string, unknown>[] = []
  socket.onmessage = ({ data }) => void (typeof data === "string" && messages.push(JSON.parse(data)))
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["sleep"] }))
  await until("the command runs", () => messages.some(({ type }) => type === "started"))
  own.host.openStreams = 1
  await later(5)
  await until("the notice comes", () => messages.some(({ type }) => type === "notice"))
  expect(messages.find(({ type }) => type === "notice")).toEqual({
    type: "notice",
    text: 'sandbox "dev" is destroyed in 5 s: its time to live ends',
    action: "destroy",
    ends_at: new Date(dayMs + 5000).toISOString(),
  })
  await later(29)
  expect(await look()).toMatchObject({ status: "running" })
  await later(1)
  expect(await look()).toMatchObject({ code: "not_found" })
  await until("the client is told", () => messages.some(({ type }) => type === "error"))
  expect(messages.at(-1)).toMatchObject({ type: "error", reason: "destroyed" })
})

test("a client that is connected gets the notices of its sandbox, whatever it and others are called now", async () => {
  await create({ ttl: 10, on_ttl: "destroy" })
  const socket = new WebSocket(`${own.url.replace("http", "ws")}/sandboxes/dev/exec/ws`, {
    headers: { authorization: `Bearer ${own.key}` },
  } as never)
  const messages: Record<string, unknown>[] = []
  socket.onmessage = ({ data }) => void (typeof data === "string" && messages.push(JSON.parse(data)))
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["sleep"] }))
  await until("the command runs", () => messages.some(({ type }) => type === "started"))
  await own.call("PATCH", "/sandboxes/dev", { name: "renamed" })
  await create({ ttl: 4, on_ttl: "destroy" })
  await later(5)
  await until("the notice comes", () => messages.some(({ type }) => type === "notice"))
  const texts = messages.filter(({ type }) => type === "notice").map(({ text }) => text)
  expect(texts).toEqual(['sandbox "renamed" is destroyed in 5 s: its time to live ends'])
})

test("the host's time of day may jump by years: nothing ends early, and nothing is forgotten", async () => {
  await create({ ttl: 100, on_ttl: "destroy" })
  dayMs += 1e12
  await later(49)
  dayMs -= 2e12
  await later(1)
  expect(await events()).toEqual(["lifetime.ending destroy"])
  await later(49)
  expect(await look()).toMatchObject({ status: "running" })
  await later(1)
  expect(await look()).toMatchObject({ code: "not_found" })
})

test("defaults of the host and of a user count for a create that asks for none", async () => {
  await own[Symbol.asyncDispose]()
  await open({ ttlMs: 3_600_000, users: { bob: { ttlMs: 60_000, onTtl: "destroy" } } })
  const { key } = await new OperatorUsers(own.core.store).create({ name: "bob" })
  expect(await create({})).toMatchObject({ ttl: 3600, on_ttl: "pause" })
  expect((await own.call("POST", "/sandboxes", { name: "x" }, key)).body).toMatchObject({
    ttl: 60,
    on_ttl: "destroy",
  })
  expect(await create({ name: "free", ttl: 0 })).toMatchObject({ ttl: null, ends_at: null })
  expect(await create({ name: "copy", from: "dev", ttl: 5 })).toMatchObject({ ttl: 5, on_ttl: "pause" })
})

test("a stopped sandbox is destroyed when it has not been used for as long as they are kept", async () => {
  await own[Symbol.asyncDispose]()
  await open({ stoppedRetentionMs: 86_400_000 })
  await create({})
  await own.call("POST", "/sandboxes/dev/stop")
  await later(20)
  expect((await why()).lifetime).toMatchObject({
    action: "destroy",
    reason: "stopped_retention",
    ends_in_seconds: 86_400,
  })
  await later(43_200)
  // Its use counts, however short.
  await own.call("POST", "/sandboxes/dev/start", {})
  await own.call("POST", "/sandboxes/dev/stop")
  await later(20)
  await later(86_400 - 3600)
  expect(await events()).toContain("lifetime.ending destroy")
  await later(3580)
  expect(await look()).toMatchObject({ status: "stopped" })
  await later(20)
  expect(await look()).toMatchObject({ code: "not_found" })
  expect(await why()).toMatchObject({ reason: "it was destroyed: it was stopped for longer than it is kept" })
})

test("a pause that fails is told and tried again", async () => {
  await create({ ttl: 10 })
  await later(5)
  own.host.failAt = "pause"
  await later(5)
  own.host.failAt = undefined
  expect(await look()).toMatchObject({ status: "running" })
  expect(await events()).toEqual(["lifetime.ending pause", "lifetime.end_failed"])
  await later(30)
  expect(await look()).toMatchObject({ status: "stopped" })
})
