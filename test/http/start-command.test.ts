/** Programs that run in a template when it is frozen: whose it is, what starts them, and what fails, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import type { Session } from "@bhatti/contract/session"
import { makeRoomForOwn, removeUnusedTemplates } from "../../src/core/clean-up.ts"
import { type Clock, systemClock } from "../../src/core/clock.ts"
import { OperatorUsers } from "../../src/core/users.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

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
  await makeRoomForOwn(own.core, "usr_00000000", 1).catch(() => undefined)
  expect(await ids()).toBe(before)
  await makeRoomForOwn(own.core, owner, 1)
  // The plain one, the used one, and one less than the limit, for the one to come.
  expect(await ids()).toBe(2 + limits.ownTemplatesMax - 1)
})

test("a failed hook is an event without its output, and the sandbox runs", async () => {
  own.host.failedHooks = [{ hook: "10-keys", reason: "it exited with 3", output: "the secret" }]
  expect((await create("dev")).status).toBe(201)
  await create("copy", { from: "dev" })
  const events = await eventsOf("sandbox.hook_failed")
  const meta = { by: "guest", hook: "10-keys", reason: "it exited with 3" }
  expect(events.map(({ sandboxName }) => sandboxName)).toEqual(["dev", "copy"])
  for (const event of events) expect(event.meta).toEqual(meta)
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

const hanging = { start_command: "serve", ready_command: "hang" }
/** A thousand times as fast. */
const fastClock: Clock = {
  ...systemClock,
  nowMs: () => systemClock.nowMs() * 1000,
  after: (ms, work) => systemClock.after(ms / 1000, work),
}
const leftOver = () => [own.core.templateBuilds.size, own.host.running.size]

async function afresh(clock: Clock): Promise<void> {
  await own[Symbol.asyncDispose]()
  own = await openHttpApp({ clock })
}

/** Asks for a sandbox; the function that it returns leaves. */
function ask(name: string, more: object): () => Promise<void> {
  const leaving = new AbortController()
  const answer = fetch(`${own.url}/sandboxes`, {
    method: "POST",
    headers: { authorization: `Bearer ${own.key}` },
    body: JSON.stringify({ name, ...more }),
    signal: leaving.signal,
  })
  return async () => {
    leaving.abort()
    expect(await answer.catch((error: Error) => error.name)).toBe("AbortError")
  }
}

const isWaiting = (count: number) => [...own.core.templateBuilds.values()][0]?.waiting === count

test("a guest that never answers while its template is made is given up by the host's clock", async () => {
  await afresh(fastClock)
  const { status, text } = await create("dev", hanging)
  expect([status, text]).toEqual([503, expect.stringContaining("was not ready after 230 s")])
  expect(leftOver()).toEqual([0, 0])
}, 5000)

test("the output of a failed start command is quoted to a limit, though the guest sends it without an end", async () => {
  await afresh(fastClock)
  let sent = 0
  own.host.shownBy = async function* () {
    for (;;) {
      yield Buffer.alloc(65_536, `${sent++} `)
      await new Promise(setImmediate)
    }
  }
  const { status, body } = await create("dev", hanging)
  const { message } = body as { message: string }
  expect([status, message]).toEqual([503, expect.stringContaining("its output ends with")])
  expect(message.length).toBeLessThan(2000)
  const before = sent
  await create("plain")
  // One piece may be on its way, and one be asked for.
  expect(sent - before).toBeLessThan(10)
}, 5000)

test("an account has one template of its own in the making; another start command is refused, the same one shares it", async () => {
  const { reached, release } = own.host.hold("template")
  const first = create("one", served)
  await reached
  const same = create("two", served)
  await until("both wait", () => isWaiting(2))
  expect(await create("other", { start_command: "another" })).toMatchObject({
    status: 429,
    body: { code: "limit_exceeded" },
  })
  release()
  expect([(await first).status, (await same).status]).toEqual([201, 201])
  expect((await create("other", { start_command: "another" })).status).toBe(201)
})

test("a template of one account's commands is given up when the last create that waits for it has left", async () => {
  const leave = [ask("one", hanging), ask("two", hanging)]
  await until("both wait", () => isWaiting(2))
  await leave[0]?.()
  await until("one waits", () => isWaiting(1))
  expect(own.core.templateBuilds.size).toBe(1)
  await leave[1]?.()
  // The next create waits for the end of what was left.
  expect((await create("next", served)).status).toBe(201)
  expect(await templatesMade()).toBe(1)
  await own.call("DELETE", "/sandboxes/next")
  expect(leftOver()).toEqual([0, 0])
})

test("a template is given up while its programs run when the host's disk is nearly full, and is not saved without room", async () => {
  const waiting = create("dev", hanging)
  await until("it is being made", () => isWaiting(1))
  own.host.freeMibNow = 10
  expect(await waiting).toMatchObject({
    status: 503,
    text: expect.stringContaining("given up: the host's disk is nearly full"),
  })
  own.host.freeMibNow = 1024 + 500
  const refused = await create("dev", { ...served, memory_mb: 512 })
  expect([refused.status, refused.text]).toEqual([503, expect.stringContaining("512 MB may be needed")])
  expect(await templatesMade()).toBe(0)
  expect(leftOver()).toEqual([0, 0])
}, 5000)

const templateIds = async () => (await own.host.templates.measure()).map(({ id }) => id)
const operator = () => new OperatorUsers(own.core.store)

test("templates of an account's own commands count in its disk quota, and unused ones give way when that is used up", async () => {
  await operator().edit("alice", { maxDiskMib: 700 })
  await create("dev", served)
  const used = async () => (await operator().list())[0]?.diskUsedMib
  expect(await used()).toBe(101)
  const refused = await create("large", { start_command: "another", memory_mb: 640 })
  expect([refused.status, refused.text]).toEqual([429, expect.stringContaining("640 MB more are needed")])
  expect((await create("small", { start_command: "another" })).status).toBe(201)
  for (const name of ["dev", "small"]) await own.call("DELETE", `/sandboxes/${name}`)
  expect(await used()).toBe(200)
  expect((await create("large", { start_command: "another", memory_mb: 640 })).status).toBe(201)
  expect(await templateIds()).toHaveLength(1)
  await own.call("DELETE", "/sandboxes/large")
  await operator().edit("alice", { maxDiskMib: 100 })
  await removeUnusedTemplates(own.core, Date.now())
  expect([await templateIds(), await used()]).toEqual([[], 0])
})

test("a template in the making counts in its owner's quota, and ends when its disk is more than that", async () => {
  await operator().edit("alice", { maxDiskMib: 2000 })
  const used = async () => (await operator().list())[0]?.diskUsedMib ?? 0
  const making = create("dev", { ...hanging, memory_mb: 640 })
  await until("it counts", async () => (await used()) >= 640)
  own.host.templateDraftMib = 500
  await until("its disk counts too", async () => (await used()) >= 640 + 500)
  await removeUnusedTemplates(own.core, Date.now())
  expect(await used()).toBeGreaterThanOrEqual(640 + 500)
  own.host.templateDraftMib = 1500
  const refused = await making
  expect([refused.status, refused.text]).toEqual([429, expect.stringContaining("your disk quota is 2000 MB")])
  await until("it is gone", async () => (await used()) === 0)
  expect(await templateIds()).toEqual([])
})

test("no template of an account's own commands is made while too many stay, or while that cannot be told", async () => {
  const made = (index: number) => create(`dev-${index}`, { start_command: `serve ${index}` })
  for (let index = 0; index < limits.ownTemplatesMax; index++) {
    await made(index)
    await own.call("DELETE", `/sandboxes/dev-${index}`)
  }
  own.host.templatesUsedMs = Date.now()
  const refused = await made(9)
  expect([refused.status, refused.text]).toEqual([429, expect.stringContaining("that no sandbox uses")])
  own.host.templatesUsedMs = 0
  own.host.templatesLainOn = undefined
  expect((await made(9)).status).toBe(503)
  own.host.templatesLainOn = []
  expect((await made(9)).status).toBe(201)
  expect(await templateIds()).toHaveLength(limits.ownTemplatesMax)
})

test("templates of a user who is gone are removed within the budget too; shared ones stay", async () => {
  const { key } = await operator().create({ name: "bea", maxSandboxes: 9 })
  await create("theirs", served, key)
  await create("plain")
  for (const [name, as] of [["theirs", key], ["plain"]] as const)
    await own.call("DELETE", `/sandboxes/${name}`, undefined, as)
  await removeUnusedTemplates(own.core, Date.now())
  expect(await templateIds()).toHaveLength(2)
  await operator().remove("bea")
  await removeUnusedTemplates(own.core, Date.now())
  expect((await own.host.templates.measure()).map(({ owner }) => owner)).toEqual([null])
})
