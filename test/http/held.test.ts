/** Sandboxes that wait for disk space while something else is going on with them, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { SandboxId } from "@bhatti/contract/ids"
import { saveAll } from "../../src/core/shutdown.ts"
import type { SandboxState } from "../../src/store/sandboxes.ts"
import { answering } from "../support/fake-host.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let id: SandboxId
beforeEach(async () => {
  own = await openHttpApp()
  id = await create("dev")
  await own.core.space.tick()
})
afterEach(() => own[Symbol.asyncDispose]())

async function create(name: string): Promise<SandboxId> {
  return ((await own.call("POST", "/sandboxes", { name })).body as { id: SandboxId }).id
}

const exec = (name = "dev") => own.call("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })
const heldNow = async (name = "dev") =>
  ((await own.call("GET", `/sandboxes/${name}`)).body as { held: string | null }).held
const pidOf = (sandbox: SandboxId) =>
  [...own.host.running].find(([, { directory }]) => directory === `/fake/${sandbox}`)?.[0] ?? 0
const stateOf = async () => (await own.core.store.sandboxes.get(id))?.state

async function becomesHeld(): Promise<void> {
  own.host.freeMibNow = 1000
  own.host.overlaysMib.set(id, 50)
  await own.core.space.tick()
  await until("it is held", async () => (await heldNow()) !== null)
}

test.each(["stopping", "warm"] as const)(
  "one that is left %s, without a channel and without space, is held and goes on by itself",
  async (kind) => {
    const hot = await stateOf()
    if (hot?.kind !== "hot") throw new Error("it does not run")
    const left: SandboxState = { kind, machine: hot.machine }
    await own.core.store.sandboxes.setState(id, left)
    own.core.guests.delete(id)
    own.host.halts.set(pidOf(id), "paused")
    own.host.memories.add(`/fake/${id}`)
    own.host.freeMibNow = 100

    expect((await exec()).status).toBe(503)
    await own.core.space.tick()
    expect([await heldNow(), await stateOf()]).toEqual(["host_disk", hot])
    expect(own.host.memories.size).toBe(0)

    own.host.freeMibNow = 5000
    await own.core.space.tick()
    await until("it goes on", async () => (await heldNow()) === null)
    expect(own.host.halts.size).toBe(0)
    expect((await exec()).status).toBe(200)
  },
)

test("one whose state could not be written goes on by itself all the same", async () => {
  const hot = await stateOf()
  if (hot?.kind !== "hot") throw new Error("it does not run")
  const { sandboxes } = own.core.store
  await sandboxes.setState(id, { kind: "stopping", machine: hot.machine })
  const setState = sandboxes.setState.bind(sandboxes)
  sandboxes.setState = () => Promise.reject(new Error("the database is full"))
  own.core.guests.delete(id)
  own.host.halts.set(pidOf(id), "disk_full")
  own.host.freeMibNow = 0
  expect((await exec()).status).toBe(503)
  sandboxes.setState = setState
  own.host.freeMibNow = 5000
  await own.core.space.tick()
  await until("it goes on", async () => (await stateOf())?.kind === "hot")
  expect(own.host.halts.size).toBe(0)
})

test("a machine that is held and ends takes the hold with it: the next one is not held", async () => {
  await becomesHeld()
  own.host.running.delete(pidOf(id))
  own.core.guests.get(id)?.close()
  await until("its end is known", async () => (await stateOf())?.kind === "cold")
  own.host.freeMibNow = 5000
  expect((await exec()).status).toBe(200)
  expect(await heldNow()).toBeNull()
})

test("a pause that ends while its machine is asked about it is nothing that was left behind", async () => {
  own.host.freeMibNow = 1000
  const { machines, halts } = own.host
  const haltOf = machines.haltOf.bind(machines)
  halts.set(pidOf(id), "paused")
  machines.haltOf = async (machine) => {
    const halt = await haltOf(machine)
    halts.delete(machine.process.pid)
    return halt
  }
  await own.core.space.tick()
  expect(await heldNow()).toBeNull()
  expect((await exec()).status).toBe(200)
})

test("one that is held while a copy of it is prepared is not copied, and stays held", async () => {
  let copies = 0
  own.host.snapshots.copyAhead = async () => {
    if (++copies === 2) await becomesHeld()
  }
  const { status, body } = await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  expect([status, body]).toMatchObject([503, { message: expect.stringContaining("disk is nearly full") }])
  expect(own.host.halts.get(pidOf(id))).toBe("paused")
  expect(await heldNow()).toBe("host_disk")
})

test("one that QEMU stops for want of space while it is copied is held with that reason", async () => {
  own.host.snapshots.capture = async () => {
    own.host.halts.set(pidOf(id), "disk_full")
    throw Object.assign(new Error("no space left"), { code: "ENOSPC" })
  }
  const { status, body } = await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  expect([status, body]).toMatchObject([503, { message: expect.stringContaining("disk is nearly full") }])
  expect(own.host.halts.get(pidOf(id))).toBe("disk_full")
  expect(await heldNow()).toBe("host_disk")
})

test("one that has ended while it was held is not saved as if it ran", async () => {
  await becomesHeld()
  own.host.running.delete(pidOf(id))
  own.core.guests.delete(id)
  own.host.freeMibNow = 5000
  await saveAll(own.core, new AbortController().signal)
  expect(await stateOf()).toMatchObject({ kind: "cold", hasSnapshot: false })
  expect(own.host.memories.size).toBe(0)
})

test("a machine whose QEMU does not answer holds up no look at the others, and is asked once", async () => {
  const other = await create("other")
  const silent = pidOf(id)
  const { machines } = own.host
  const haltOf = machines.haltOf.bind(machines)
  let asked = 0
  machines.haltOf = (machine) => {
    if (machine.process.pid !== silent) return haltOf(machine)
    asked++
    return new Promise(() => undefined)
  }
  own.host.freeMibNow = 1030
  await own.core.space.tick()
  own.host.halts.set(pidOf(other), "disk_full")
  await own.core.space.tick()
  expect([await heldNow("other"), asked]).toEqual(["host_disk", 1])
})

test("a stop whose guest finds no space for what it writes out is refused at once, and the sandbox goes on later", async () => {
  const guest = own.core.guests.get(id)
  if (!guest) throw new Error("no guest")
  answering(guest, {
    quiesce: () => {
      own.host.halts.set(pidOf(id), "disk_full")
      own.host.freeMibNow = 0
      return new Promise(() => undefined)
    },
  })
  const { status, body } = await own.call("POST", "/sandboxes/dev/stop")
  expect([status, body]).toMatchObject([503, { message: expect.stringContaining("disk is nearly full") }])
  expect([await heldNow(), (await stateOf())?.kind]).toEqual(["host_disk", "hot"])
  own.host.freeMibNow = 5000
  await own.core.space.tick()
  await until("it goes on", async () => (await heldNow()) === null)
  expect((await own.call("POST", "/sandboxes/dev/stop")).status).toBe(200)
})

test.each(["repair", "restart"])("a %s of one whose guest finds no space ends no machine", async (what) => {
  const guest = own.core.guests.get(id)
  if (!guest) throw new Error("no guest")
  const pid = pidOf(id)
  const findsNoSpace = () => {
    own.host.halts.set(pid, "disk_full")
    own.host.freeMibNow = 0
    return new Promise<unknown>(() => undefined)
  }
  answering(guest, { quiesce: findsNoSpace, shutdown: findsNoSpace })
  expect((await own.call("POST", `/sandboxes/dev/${what}`)).status).toBe(503)
  expect([await heldNow(), own.host.running.has(pid)]).toEqual(["host_disk", true])
})

test("a restart is refused before its guest is told, while the host has no room for what it writes out", async () => {
  const guest = own.core.guests.get(id)
  if (!guest) throw new Error("no guest")
  let told = 0
  answering(guest, {
    shutdown: () => {
      told++
      return undefined
    },
  })
  const pid = pidOf(id)
  own.host.freeMibNow = 100
  const { status, body } = await own.call("POST", "/sandboxes/dev/restart")
  const message = 'sandbox "dev" is not restarted: the host\'s disk is nearly full'
  expect([status, body]).toMatchObject([503, { message }])
  expect([told, own.host.running.has(pid), (await exec()).status]).toEqual([0, true, 200])
  own.host.freeMibNow = 5000
  expect((await own.call("POST", "/sandboxes/dev/restart")).status).toBe(200)
  expect(told).toBe(1)
})
