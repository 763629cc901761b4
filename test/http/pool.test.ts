/** When the pool is filled and emptied, on a fake host, with alarms that ring when a test says so. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { StartedTask, Task } from "@bhatti/contract/task"
import { type Clock, systemClock } from "../../src/core/clock.ts"
import { ownGraceMs } from "../../src/rules/template-clean-up.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
type Alarm = { ms: number; work: () => void }
let alarms = new Set<Alarm>()
const clock: Clock = {
  ...systemClock,
  after(ms, work) {
    const alarm = { ms, work }
    alarms.add(alarm)
    return { cancel: () => alarms.delete(alarm) }
  },
}
beforeEach(async () => {
  alarms = new Set()
  own = await openHttpApp({ clock, pool: { sizeMax: 2, memoryMibMax: 1000 } })
  await create("first")
})
afterEach(() => own[Symbol.asyncDispose]())

const create = async (name: string) => (await own.call("POST", "/sandboxes", { name })).status
const ring = (msMax = Number.POSITIVE_INFINITY) => {
  const due = [...alarms].filter(({ ms }) => ms <= msMax)
  for (const alarm of due) {
    alarms.delete(alarm)
    alarm.work()
  }
}
const fill = () =>
  until("the pool is full", () => {
    ring()
    return own.core.pool.readyCount === 2
  })

test("an image that was just pulled has machines ready before its first create, and takes them along", async () => {
  const pulled = await own.call("POST", "/images/pull", { ref: "registry.example/app:1", name: "app" })
  const { task_id } = StartedTask.parse(pulled.body)
  const isOver = async () => {
    ring()
    const { body } = await own.call("GET", `/tasks/${task_id}`)
    return Task.parse(body).completed_at !== null
  }
  await until("it is pulled", isOver)
  await fill()
  expect((await own.call("POST", "/sandboxes", { name: "quick", image: "app" })).status).toBe(201)
  await until("the event is written", async () => {
    const { text } = await own.call("GET", "/events?sandbox=quick")
    return text.includes('"from":"pool"')
  })
  expect((await own.call("DELETE", "/sandboxes/quick")).status).toBe(200)
  expect((await own.call("DELETE", "/images/app")).status).toBe(200)
  expect([own.host.pulls.disks.size, own.core.pool.readyCount]).toEqual([0, 0])
})

test("an image that is deleted while a machine of it is being made takes that one along, and its disk", async () => {
  const gate = Promise.withResolvers<void>()
  const { start } = own.host.machines
  const others = own.core.pool.templateIds
  let begun = 0
  own.host.machines.start = async (place, from) => {
    if (from.kind === "template" && !others.includes(place.template.id)) {
      begun++
      await gate.promise
    }
    return start(place, from)
  }
  const pulled = await own.call("POST", "/images/pull", { ref: "registry.example/app:1", name: "app" })
  const { task_id } = StartedTask.parse(pulled.body)
  await until("it is pulled", async () => {
    const { body } = await own.call("GET", `/tasks/${task_id}`)
    return Task.parse(body).completed_at !== null
  })
  await until("a machine of it is being made", () => {
    ring()
    return begun > 0
  })
  const deleting = own.call("DELETE", "/images/app")
  await until("its row is gone", async () => (await own.call("GET", "/images/app")).status === 404)
  gate.resolve()
  expect((await deleting).status).toBe(200)
  expect(own.host.pulls.disks.size).toBe(0)
})

test("it is not filled while a create is going on", async () => {
  const gate = Promise.withResolvers<void>()
  const { start } = own.host.machines
  let clones = 0
  own.host.machines.start = async (...given) => {
    clones++
    await gate.promise
    return start(...given)
  }
  const creating = create("second")
  await until("it is being made", () => clones === 1)
  ring()
  await until("nothing else was begun", async () => (await own.call("GET", "/health")).status === 200)
  expect(clones).toBe(1)
  gate.resolve()
  expect(await creating).toBe(201)
  await fill()
})

test("on a host that is short of memory it gives its own back, and fills again when there is enough", async () => {
  await create("second")
  await fill()
  expect(own.host.running.size).toBe(4)
  own.host.availableMemoryMibNow = 2 * 512 - 1
  await own.core.thermal.tick(clock.nowMs())
  await until("its machines are gone", () => own.host.running.size === 2)
  // Templates of one account's start commands give up theirs too.
  expect(own.host.released).toEqual([ownGraceMs])
  own.host.availableMemoryMibNow = 2 * 512 + 35
  ring()
  // A create has memory, from an empty pool.
  expect(await create("third")).toBe(201)
  expect([own.core.pool.readyCount, own.host.running.size]).toEqual([0, 3])
  own.host.availableMemoryMibNow = 100_000
  await fill()
})

test("a batch that is refused gives back what it took of the pool, and one that fits is made of it", async () => {
  await create("second")
  await fill()
  await own.core.store.users.edit("alice", { maxSandboxes: 4 })
  const batch = async (count: number) => (await own.call("POST", "/sandboxes/batch", { count })).status
  expect(await batch(3)).toBe(429)
  expect(own.core.pool.readyCount).toBe(2)
  expect(await batch(2)).toBe(201)
  const events = (await own.call("GET", "/events")).body as { type: string; meta: { from?: string } }[]
  const created = events.filter(({ type }) => type === "sandbox.created")
  expect(created.map(({ meta }) => meta.from)).toEqual(["template", "template", "pool", "pool"])
})

test("a batch whose last machine does not start takes its pooled ones with it", async () => {
  await create("second")
  await fill()
  own.host.failAt = "clone"
  expect((await own.call("POST", "/sandboxes/batch", { count: 3 })).status).toBe(503)
  own.host.failAt = undefined
  const { body } = await own.call("GET", "/sandboxes")
  expect(body).toHaveLength(2)
  expect(own.host.running.size).toBe(2 + own.core.pool.readyCount)
  expect(own.host.directories.size).toBe(2 + own.core.pool.readyCount)
})

test("programs of a template stand still in the pool, and run on when a sandbox has its owner", async () => {
  own.host.imagePrograms = { start: "database", ready: "true" }
  let status: number | undefined
  void create("db").then((created) => {
    status = created
  })
  // The template is watched for a moment after its program has got ready.
  await until("its template is made", () => {
    ring(200)
    return status === 201
  })
  await create("db-2")
  const going = own.host.hold("start clone")
  await fill()
  const creating = create("db-3")
  await going.reached
  going.release()
  expect(await creating).toBe(201)
  const events = (await own.call("GET", "/events")).body as { type: string; meta: { from?: string } }[]
  const created = events.filter(({ type }) => type === "sandbox.created")
  expect(created.at(-1)?.meta.from).toBe("pool")
})
