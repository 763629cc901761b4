/**
 * Log and events have bounds for what a guest, a user or a stranger repeats, and nobody's flood hides what is said of
 * others.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import { BoundedLog, requesterRate, subjectRate, textCharactersMax } from "../../src/core/bounded-log.ts"
import { systemClock } from "../../src/core/clock.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

type Line = { level: string; message: string; [field: string]: unknown }

let own: HttpApp
let nowMs = 0
let lines: Line[] = []
const clock = { ...systemClock, nowMs: () => nowMs }
const keep = (level: string) => (fields: Record<string, unknown>, message: string) => {
  lines.push({ ...fields, level, message })
}
const target = { info: keep("info"), warn: keep("warn"), error: keep("error") }
beforeEach(async () => {
  nowMs = systemClock.nowMs()
  lines = []
  own = await openHttpApp({ clock, log: target })
})
afterEach(() => own[Symbol.asyncDispose]())

async function events(): Promise<{ meta: Record<string, unknown> }[]> {
  return (await own.call("GET", `/events?type=sandbox.init_failed&limit=${limits.eventsPerReplyMax}`))
    .body as { meta: Record<string, unknown> }[]
}

test("a guest that says without end that its init script has failed fills neither events nor log, and what was left out is counted", async () => {
  await own.call("POST", "/sandboxes", { name: "bad", init: "serve" })
  const signal = "X".repeat(200_000)
  for (let count = 0; count < 5000; count++) own.host.endInit(1, signal)
  const kept = await events()
  expect(kept).toHaveLength(200)
  expect(Math.max(...kept.map(({ meta }) => JSON.stringify(meta).length))).toBeLessThan(3000)
  expect(
    lines.map((line) => JSON.stringify(line).length).reduce((sum, length) => sum + length, 0),
  ).toBeLessThan(50_000)

  // Another sandbox's are all there, and so are the same one's when it is quiet again.
  await own.call("POST", "/sandboxes", { name: "good", init: "serve" })
  own.host.endInit(7)
  nowMs += 60_000
  own.host.endInit(8)
  expect((await events()).slice(200).map(({ meta }) => meta["exit_code"])).toEqual([7, 8])
})

test("the next event of a sandbox tells how many were left out", () => {
  const recorded: unknown[] = []
  own.core.metrics.onEvent = ({ meta }) => void recorded.push(meta["dropped"])
  const record = () =>
    own.core.events.record({
      type: "sandbox.init_failed",
      sandbox: { id: "sb_1", name: "dev" },
      meta: { by: "guest" },
    })
  for (let count = 0; count < 250; count++) record()
  nowMs += 1100
  record()
  record()
  expect(recorded.filter((dropped) => dropped !== undefined)).toEqual([50])
})

test("events of requests are all recorded, however many", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  const sandbox = { id: "sb_1", name: "dev" }
  for (let count = 0; count < 900; count++)
    own.core.events.record({ type: "sandbox.updated", sandbox, userId: "usr_x", meta: { by: "user" } })
  expect(await own.core.events.list({ userId: "usr_x" }, 1000)).toHaveLength(900)
})

test("of many events of one user the oldest of that user go, and nobody else's", async () => {
  const { events } = own.core.store
  const add = (userId: string, count: number) => {
    for (let done = 0; done < count; done++) own.core.events.record({ type: "secret.set", userId })
  }
  add("usr_quiet", 3)
  add("usr_busy", 30)
  await own.core.events.flush()
  expect(await events.prune(Date.now(), { keptMax: 100, perUserMax: 20 })).toBe(10)
  expect(await events.list({ userId: "usr_quiet" }, 100)).toHaveLength(3)
  expect(await events.list({ userId: "usr_busy" }, 100)).toHaveLength(20)
  await events.prune(Date.now(), { keptMax: 15, perUserMax: 20 })
  expect(await events.list({ userId: null }, 100)).toHaveLength(15)
})

test("events are pruned when many were written, not only when an hour is over", async () => {
  let pruned = 0
  own.core.store.events.prune = async () => ++pruned
  for (let count = 0; count < 25_000; count++) {
    own.core.events.record({ type: "secret.set", userId: "usr_x" })
    if (count % 5000 === 4999) await own.core.events.flush()
  }
  expect(pruned).toBe(2)
})

test("requests without a key beyond a rate write no lines, and a user's own are written meanwhile", async () => {
  const anybody = async () => void (await own.call("GET", "/sandboxes", undefined, "bht_nobody"))
  for (let count = 0; count < 2600; count += 100)
    await Promise.all(Array.from({ length: 100 }, () => anybody()))
  const isRequest = ({ message, user }: Line) => message === "request" && user === undefined
  expect(lines.filter(isRequest)).toHaveLength(requesterRate.burst)
  await own.call("GET", "/sandboxes")
  expect(lines.at(-1)).toMatchObject({ message: "request", user: "alice" })
  nowMs += 1100
  await anybody()
  expect(lines.at(-1)).toMatchObject({ message: "request", status: 401, dropped: 600 })
})

test("a subject's flood hides neither its errors nor another subject, and is told with its next line", () => {
  const log = new BoundedLog(target, clock)
  for (let count = 0; count < 1000; count++) log.info({ sandbox: "sb_bad" }, "trouble")
  expect(lines).toHaveLength(subjectRate.burst)
  expect(log.droppedCount).toBe(1000 - subjectRate.burst)
  log.error({ sandbox: "sb_bad" }, "an error")
  log.info({ sandbox: "sb_good" }, "fine")
  log.warn({}, "of the daemon's own")
  nowMs += 60_000
  log.info({ sandbox: "sb_bad" }, "trouble")
  expect(lines.slice(subjectRate.burst)).toEqual([
    { level: "error", sandbox: "sb_bad", message: "an error" },
    { level: "info", sandbox: "sb_good", message: "fine" },
    { level: "warn", message: "of the daemon's own" },
    { level: "info", sandbox: "sb_bad", message: "trouble", dropped: 1000 - subjectRate.burst },
  ])
})

test("long texts keep their beginning and their end, wherever they stand", () => {
  const log = new BoundedLog(target, clock)
  const text = `begin ${"x".repeat(1_000_000)} end`
  log.warn({ console: text, deep: { list: [text], many: Array.from({ length: 1000 }, () => 1) } }, text)
  const [line] = lines
  expect(line?.["console"]).toMatch(/^begin x+ … \d+ characters … x+ end$/)
  expect(JSON.stringify(line).length).toBeLessThan(4 * textCharactersMax)
})
