/** Events and metrics through the HTTP interface: what is recorded, who reads it, and that recording costs nothing. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { Event } from "@bhatti/contract/event"
import { limits } from "@bhatti/contract/limits"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

const metricsToken = "a-token-for-the-metrics"
let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp({ metricsToken })
})
afterEach(() => own[Symbol.asyncDispose]())

/** Without that of the user's own creation. */
const list = async (query = "", key = own.key) =>
  Event.array()
    .parse((await own.call("GET", `/events${query}`, undefined, key)).body)
    .filter(({ type }) => !type.startsWith("user."))
const types = (events: Event[]) => events.map(({ type }) => type)

test("a sandbox's life is recorded in order: who, what, how long", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/stop")
  await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
  await own.call("PATCH", "/sandboxes/dev", { keep_hot: true })
  await own.call("POST", "/sandboxes/dev/publish", { port: 3000, alias: "web" })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "snap" })
  await own.call("DELETE", "/snapshots/snap")
  await own.call("DELETE", "/sandboxes/dev/publish/3000")
  await own.call("DELETE", "/sandboxes/dev")
  const events = await list()
  expect(types(events)).toEqual([
    "sandbox.created",
    "sandbox.stopped",
    "thermal.wake",
    "sandbox.updated",
    "publish.created",
    "snapshot.created",
    "snapshot.deleted",
    "publish.deleted",
    "sandbox.destroyed",
  ])
  expect(events[0]).toMatchObject({ sandbox_name: "dev", meta: { by: "user", from: "template" } })
  expect(events[2]?.meta).toMatchObject({ by: "exec", from: "cold", how: "memory", reason: null })
  for (const { meta } of events.slice(0, 3)) expect(meta["ms"]).toBeNumber()
})

test("they are filtered by type, sandbox, time and number, and are their owner's alone", async () => {
  for (const name of ["one", "two"]) await own.call("POST", "/sandboxes", { name })
  await own.call("POST", "/sandboxes/one/stop")
  const { id } = (await own.call("GET", "/sandboxes/two")).body as Sandbox
  await own.call("DELETE", "/sandboxes/two")
  expect(types(await list("?type=sandbox.s"))).toEqual(["sandbox.stopped"])
  expect(types(await list("?sandbox=two"))).toEqual(["sandbox.created", "sandbox.destroyed"])
  expect(await list(`?sandbox=${id}`)).toEqual(await list("?sandbox=two"))
  expect(types(await list("?limit=1"))).toEqual(["sandbox.destroyed"])
  expect(await list(`?since=${new Date(Date.now() + 60_000).toISOString()}`)).toEqual([])
  const { key: bob } = await own.core.store.users.create({ name: "bob" })
  expect(await list("", bob)).toEqual([])
  for (const query of ["?limit=1e9", "?since=yesterday", "?type=%27%20or%201", "?flavour=x", "?follow=maybe"])
    expect((await own.call("GET", `/events${query}`)).status).toBe(400)
})

test("no secret, key or value of a variable is in any event", async () => {
  await own.call("POST", "/secrets", { name: "TOKEN", value: "canary-secret" })
  await own.call("POST", "/sandboxes", { name: "dev", env: { A: "canary-env" }, secrets: ["TOKEN"] })
  await own.call("POST", "/sandboxes/dev/exec", {
    cmd: ["echo", "canary-argument"],
    env: { B: "canary-own" },
  })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "snap" })
  await own.call("POST", "/snapshots/snap/resume", { secrets: ["TOKEN"] })
  await own.call("DELETE", "/secrets/TOKEN")
  const text = JSON.stringify(await list())
  expect(text).toContain("secret.set")
  expect(text).not.toContain("canary")
  expect(text).not.toContain("bht_")
})

test("keys that are nobody's are one event a minute, however many are tried", async () => {
  const recorded: string[] = []
  const { record } = own.core.events
  own.core.events.record = (event) => {
    recorded.push(event.type)
    record.call(own.core.events, event)
  }
  for (let round = 0; round < 20; round++)
    await own.call("GET", "/sandboxes", undefined, `bht_${"0".repeat(64)}`)
  expect(recorded).toEqual(["auth.failed"])
})

test("followed: the stored ones, then further ones as they happen, nothing twice, nothing missed", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  const abort = new AbortController()
  const response = await fetch(`${own.url}/events?follow=true&type=sandbox.`, {
    headers: { authorization: `Bearer ${own.key}` },
    signal: abort.signal,
  })
  expect(response.headers.get("content-type")).toBe("application/x-ndjson")
  const seen: string[] = []
  const reading = (async () => {
    const decoder = new TextDecoder()
    for await (const bytes of response.body ?? []) {
      for (const line of decoder.decode(bytes).split("\n"))
        if (line !== "") seen.push((JSON.parse(line) as Event).type)
      if (seen.length >= 3) return
    }
  })()
  await own.call("POST", "/sandboxes/dev/stop")
  await own.call("DELETE", "/sandboxes/dev")
  await reading
  abort.abort()
  expect(seen).toEqual(["sandbox.created", "sandbox.stopped", "sandbox.destroyed"])
})

test("nothing of another user, stored or followed", async () => {
  const { key: bob } = await own.core.store.users.create({ name: "bob" })
  const { id } = (await own.call("POST", "/sandboxes", { name: "mine" })).body as { id: string }
  const ask = async (query: string) => (await own.call("GET", `/events${query}`, undefined, bob)).body
  for (const name of ["mine", id])
    expect(await ask(`?sandbox=${name}`)).toMatchObject({
      code: "not_found",
      message: `no sandbox named "${name}"`,
    })
  expect(await ask("?type=sandbox.")).toEqual([])

  const abort = new AbortController()
  const response = await fetch(`${own.url}/events?follow=true&type=sandbox.`, {
    headers: { authorization: `Bearer ${bob}` },
    signal: abort.signal,
  })
  await own.call("POST", "/sandboxes/mine/stop")
  await own.call("DELETE", "/sandboxes/mine")
  const bobs = (await own.call("POST", "/sandboxes", { name: "mine" }, bob)).body as { id: string }
  const decoder = new TextDecoder()
  let text = ""
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes)
    if (text.includes("\n{") || text.startsWith("{")) break
  }
  expect(JSON.parse(text)).toMatchObject({ type: "sandbox.created", sandbox_id: bobs.id })
  abort.abort()
})

test("a follower that does not read is cut, and the others hear everything", async () => {
  const account = await own.core.store.users.findByKey(own.key)
  if (!account) throw new Error("no account")
  const slow = own.core.events.subscribe({ userId: account.id })
  const quick = own.core.events.subscribe({ userId: account.id, type: "snapshot." })
  for (let round = 0; round <= limits.eventBacklogMax; round++)
    own.core.events.record({ type: "sandbox.updated", userId: account.id })
  own.core.events.record({ type: "snapshot.deleted", userId: account.id })
  expect(slow?.isCut).toBe(true)
  expect(await slow?.next({ quietMs: 1 })).toBeUndefined()
  expect(await quick?.next({ quietMs: 1 })).toMatchObject({ type: "snapshot.deleted" })
  quick?.close()
})

test("followers are bounded, and one that leaves makes room", async () => {
  const all = Array.from({ length: limits.eventSubscribersMax }, () =>
    own.core.events.subscribe({ userId: "usr_x" }),
  )
  expect(all.every((one) => one !== undefined)).toBe(true)
  expect((await own.call("GET", "/events?follow=true")).status).toBe(503)
  all[0]?.close()
  expect(own.core.events.subscribe({ userId: "usr_x" })).toBeDefined()
})

test("an event that cannot be written fails nothing", async () => {
  own.core.store.events.add = () => Promise.reject(new Error("disk full"))
  expect((await own.call("POST", "/sandboxes", { name: "dev" })).status).toBe(201)
  await own.core.events.flush()
  expect((await own.call("DELETE", "/sandboxes/dev")).status).toBe(200)
})

test("recording writes nothing itself; ten thousand events come to a few writes", async () => {
  let writes = 0
  const { events } = own.core.store
  const { add } = events
  events.add = (records) => {
    writes++
    return add.call(events, records)
  }
  for (let round = 0; round < 10_000; round++)
    own.core.events.record({ type: "sandbox.updated", userId: "usr_x" })
  expect(writes).toBe(0)
  await own.core.events.flush()
  expect(writes).toBe(1)
  expect(await events.list({ userId: "usr_x" }, 20_000)).toHaveLength(10_000)
})

test("old ones are removed", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.core.events.flush()
  const nowMs = Date.now()
  expect(await own.core.store.events.prune(nowMs + 89 * 86_400_000)).toBe(0)
  expect(await own.core.store.events.prune(nowMs + 91 * 86_400_000)).toBeGreaterThan(0)
  expect(await list()).toEqual([])
})

test("metrics are for who has the token, and count what happens", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/stop")
  await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "snap" })
  for (const key of [own.key, "wrong", ""])
    expect((await own.call("GET", "/metrics", undefined, key)).status).toBe(401)
  const { status, text, headers } = await own.call("GET", "/metrics", undefined, metricsToken)
  expect(status).toBe(200)
  expect(headers.get("content-type")).toContain("text/plain; version=0.0.4")
  for (const line of [
    'bhatti_sandboxes{state="hot"} 1',
    'bhatti_sandboxes{state="cold"} 0',
    'bhatti_create_seconds_count{from="template"} 1',
    'bhatti_wake_seconds_count{from="cold",how="memory"} 1',
    "bhatti_execs_total 1",
    "bhatti_exec_seconds_count 1",
    'bhatti_save_seconds_count{by="user"} 1',
    "bhatti_snapshot_bytes 1048576",
    "bhatti_disk_free_bytes 104857600000",
    "bhatti_memory_available_bytes 104857600000",
  ])
    expect(text).toContain(`${line}\n`)
  expect(text).toMatch(/bhatti_daemon_memory_bytes \d{7,}/)
})

test("without a token in the configuration there are no metrics", async () => {
  await using other = await openHttpApp()
  expect((await other.call("GET", "/metrics")).status).toBe(404)
})

test("why knows what was asked last", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
  expect((await own.call("GET", "/sandboxes/dev/why")).body).toMatchObject({
    thermal: "hot",
    last_touch: { what: "exec" },
    started_from_disk: null,
  })
})

const panic = "[    1.0] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.1] CPU: 0\r\n"
test.each([
  [true, undefined, "the host ran out of memory and ended its machine"],
  [false, undefined, "its machine was killed"],
  [false, { how: "poweroff", console: "" }, "it was powered off inside"],
  [false, { how: "agent", console: "" }, "its agent failed and switched it off"],
  [false, { how: "panic", console: panic }, "its kernel panicked: sysrq triggered crash"],
] as const)(
  "why tells the ends of machines apart, whether the host had no memory or the guest ended it: %s %o",
  async (isOutOfMemory, end, reason) => {
    await own.call("POST", "/sandboxes", { name: "dev" })
    const { id } = (await own.call("GET", "/sandboxes/dev")).body as Sandbox
    own.host.running.clear()
    own.host.isOutOfMemory = isOutOfMemory
    own.host.end = end
    own.core.guests.get(id)?.close()
    await until("it is cold", async () => {
      const { body } = await own.call("GET", "/sandboxes/dev/why")
      return (body as { thermal: string }).thermal === "cold"
    })
    expect((await own.call("GET", "/sandboxes/dev/why")).body).toMatchObject({
      reason: `${reason}; the next request boots it from its disk`,
      panic_console: end?.how === "panic" ? panic.trim() : null,
    })
  },
)

test("one that is rebooted inside starts again by itself, but not when it does nothing else", async () => {
  await own.call("POST", "/sandboxes", { name: "dev" })
  const { id } = (await own.call("GET", "/sandboxes/dev")).body as Sandbox
  own.host.end = { how: "reboot", console: "" }
  const wakes = async () =>
    (await own.core.events.list({ userId: null, type: "thermal.wake" }, 100)).filter(
      ({ meta }) => meta["by"] === "its reboot",
    ).length
  const reboot = () => {
    own.host.running.clear()
    own.core.guests.get(id)?.close()
  }
  for (const times of [1, 2, 3]) {
    reboot()
    await until("it was started again", async () => (await wakes()) === times && own.core.guests.has(id))
  }
  reboot()
  await until("it is left alone", async () => {
    const { body } = await own.call("GET", "/sandboxes/dev")
    return (body as Sandbox).status_reason === "it was rebooted inside more than 3 times within a minute"
  })
  expect(await wakes()).toBe(3)
})

test("a sandbox's own times go before the host's, can be changed and taken back", async () => {
  await own.call("POST", "/sandboxes", { name: "dev", warm_after: 3600, cold_after: 0 })
  const why = async () =>
    (await own.call("GET", "/sandboxes/dev/why")).body as { changes_in_seconds: number; reason: string }
  expect((await why()).changes_in_seconds).toBeGreaterThan(3500)
  await own.call("PATCH", "/sandboxes/dev", { warm_after: 0 })
  expect((await why()).reason).toBe("it is set not to be paused")
  const { body } = await own.call("PATCH", "/sandboxes/dev", { warm_after: null, cold_after: null })
  expect(body).toMatchObject({ warm_after: null, cold_after: null })
  expect((await why()).changes_in_seconds).toBeLessThanOrEqual(30)
  for (const body of [{ warm_after: -1 }, { cold_after: 1e12 }, { warm_after: "soon" }])
    expect((await own.call("PATCH", "/sandboxes/dev", body)).status).toBe(400)
})

test("a type or a sandbox that there is not is an error with the nearest name", async () => {
  await own.call("POST", "/sandboxes", { name: "builder" })
  const ask = async (query: string) => (await own.call("GET", `/events${query}`)).body
  expect(await ask("?type=sandbox.stoped")).toMatchObject({
    code: "invalid",
    message: 'no type of event begins with "sandbox.stoped"',
    hint: expect.stringMatching(/^did you mean sandbox.stopped\? there are sandbox.created, /),
  })
  expect(await ask("?type=sanbox.")).toMatchObject({
    hint: expect.stringMatching(/^did you mean sandbox\.\?/),
  })
  expect(await ask("?type=xyz")).toMatchObject({
    hint: expect.stringMatching(/^there are exec\., process\., /),
  })
  expect(await ask("?type=exec")).toEqual([])
  expect(await ask("?sandbox=bilder")).toMatchObject({ code: "not_found", hint: "did you mean builder?" })
  await own.call("DELETE", "/sandboxes/builder")
  expect(await ask("?sandbox=builder&type=sandbox.destroyed")).toHaveLength(1)
  expect(await ask("?follow=true&type=exek.")).toMatchObject({ code: "invalid" })
})
