/** When zygotes are made, used, replaced and given up, on a fake host, with alarms that ring when a test says so. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { type Clock, systemClock } from "../../src/core/clock.ts"
import type { ForkTrial, Guest, Zygote } from "../../src/core/host.ts"
import { failuresMax, servedMs, zygoteAgeMaxMs } from "../../src/rules/zygotes.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
type Alarm = { ms: number; work: () => void }
let alarms = new Set<Alarm>()
let laterMs = 0
const clock: Clock = {
  ...systemClock,
  nowMs: () => systemClock.nowMs() + laterMs,
  after(ms, work) {
    const alarm = { ms, work }
    alarms.add(alarm)
    return { cancel: () => alarms.delete(alarm) }
  },
}
let warnings: string[] = []
let rests: number[] = []
let trials: ForkTrial[] = []
let made: Zygote[] = []
/** Why forks fail now, and whether zygotes do. */
let forkError: AppError | undefined
let freezeError: AppError | undefined
let isMute = false
/** True for each identity with a network that a zygote's guest was given. */
let networks: boolean[] = []

beforeEach(async () => {
  ;[alarms, laterMs, warnings, rests, trials, made, networks] = [new Set(), 0, [], [], [], [], []]
  ;[forkError, freezeError, isMute] = [undefined, undefined, false]
  const warn = ({ restMs }: { restMs?: number }, text: string) => {
    warnings.push(text)
    if (restMs !== undefined) rests.push(restMs)
  }
  const log = { info() {}, warn, error() {} }
  own = await openHttpApp({ clock, log, maxSandboxes: 100, pool: { sizeMax: 2, memoryMibMax: 1000 } })
  forkable()
})
afterEach(() => own[Symbol.asyncDispose]())

function recordNetworks(guest: Guest): Guest {
  const { ask } = guest
  const recording: Guest["ask"] = (request, options) => {
    if (request.op === "personalise" && "identity" in request)
      networks.push(request.identity.network !== null)
    return ask.call(guest, request, options)
  }
  return Object.assign(guest, { ask: recording })
}

/** Gives the fake host zygotes, which are machines of it. */
function forkable(): void {
  const { machines } = own.host
  const { start } = machines
  const begin = (template: Zygote["template"], name: string) =>
    start({ id: name, template, slot: 0, diskMib: 1 }, { kind: "template" })
  const kill = ({ process }: Zygote) =>
    machines.kill({ id: `zygote-${process.pid}`, process, memoryBase: "template" })
  own.host.zygotes = {
    build: "QEMU 9.9",
    async start(template) {
      const { machine, guest } = await begin(template, `zygote-${made.length}`)
      const zygote = { template, process: machine.process }
      made.push(zygote)
      return { zygote, guest: recordNetworks(guest) }
    },
    async freeze() {
      if (freezeError) throw freezeError
    },
    async try({ template }, prove) {
      const { machine, guest } = await begin(template, "trial")
      await prove(guest).finally(() => machines.kill(machine))
    },
    isAlive: ({ process }) => own.host.running.has(process.pid),
    end: kill,
    keepTrial: async (trial) => void trials.push(trial),
  }
  machines.start = async (place, from) => {
    const isForked = from.kind === "template" && from.zygote !== undefined
    if (isForked && forkError) return { ...(await start(place, from)), fork: { error: forkError } }
    const started = await start(place, from)
    if (!isForked) return started
    const mute = () => Promise.reject(new AppError("unavailable", "the guest did not answer in time"))
    const guest: Guest = isMute ? Object.assign(started.guest, { waitReady: mute }) : started.guest
    return { ...started, guest, fork: "done" }
  }
}

/** The alarm that ends a zygote which another has replaced. */
const lingerMs = 15_000
const ring = (msMax = Number.POSITIVE_INFINITY, but?: number) => {
  const due = [...alarms].filter(({ ms }) => ms <= msMax && ms !== but)
  for (const alarm of due) {
    alarms.delete(alarm)
    alarm.work()
  }
}
const create = async (name: string, input = {}) => {
  expect((await own.call("POST", "/sandboxes", { name, ...input })).status).toBe(201)
  const events = (await own.call("GET", "/events")).body as { type: string; meta: { from?: string } }[]
  return events.findLast(({ type }) => type === "sandbox.created")?.meta.from
}
const ready = (count = 1) =>
  until("there is a zygote", () => {
    ring()
    return own.core.zygotes.readyCount === 1 && made.length === count
  })

test("the template of a create gets one after its trial; later sandboxes are forked, and none waits in the pool", async () => {
  expect(own.core.zygotes.status.by).toBe("clone")
  expect(await create("first")).toBe("template")
  await ready()
  expect(own.core.zygotes.status).toEqual({
    by: "fork",
    reason: "a machine was forked from QEMU 9.9 and ran a command; there is no pool",
  })
  expect(trials).toEqual([{ works: true, reason: null }])
  expect(await create("second")).toBe("fork")
  ring()
  expect([own.core.pool.readyCount, own.host.running.size]).toEqual([0, 3])
  expect((await own.call("GET", "/version")).body).toMatchObject({ starts: "fork" })
})

test("a zygote has set up a network as a machine does, twice, and stands still without one", async () => {
  await create("first")
  await ready()
  expect(networks).toEqual([true, false, true, false])
})

test("with pool: 0 nothing is made for a template that is used once, and its second create brings a zygote", async () => {
  await own[Symbol.asyncDispose]()
  own = await openHttpApp({ clock, maxSandboxes: 100, pool: { sizeMax: 0, memoryMibMax: 0 } })
  forkable()
  expect(await create("only")).toBe("template")
  ring()
  expect(made).toEqual([])
  expect(await create("second")).toBe("template")
  await ready()
  expect(await create("third")).toBe("fork")
})

test("a fork that fails is a clone within the same create; the log says so once, and so many in a row end the zygote", async () => {
  await create("first")
  await ready()
  forkError = new AppError("unavailable", "the zygote cannot fork: no more processes")
  for (let count = 0; count < failuresMax; count++) expect(await create(`clone-${count}`)).toBe("template")
  expect(warnings.filter((text) => text === "a machine was cloned, since its fork failed")).toHaveLength(1)
  expect(own.core.zygotes.readyCount).toBe(0)
  forkError = undefined
  laterMs += 60_000
  await ready(2)
  expect(await create("forked")).toBe("fork")
})

test("a forked machine whose guest does not answer is replaced by a clone within the same create", async () => {
  await create("first")
  await ready()
  isMute = true
  expect(await create("second")).toBe("template")
  // The zygote, and a machine of each sandbox.
  expect(own.host.running.size).toBe(3)
  const { body } = await own.call("POST", "/sandboxes/second/exec", { cmd: ["true"] })
  expect(body).toMatchObject({ exit_code: 0 })
})

test("so many whose guests do not answer, in a row, end the zygote", async () => {
  await create("first")
  await ready()
  isMute = true
  for (let count = 0; count < failuresMax; count++) expect(await create(`clone-${count}`)).toBe("template")
  expect(own.core.zygotes.readyCount).toBe(0)
})

test("a QEMU that cannot be forked: sandboxes are cloned, the reason is told once, and the attempts rest ever longer", async () => {
  freezeError = new AppError("unavailable", "the zygote cannot check: QEMU lacks vm_start")
  await create("first")
  for (let attempt = 1; attempt <= 4; attempt++) {
    await until("it was tried", () => {
      ring()
      return made.length === attempt
    })
    await until("it has ended", () => own.host.running.size === 1 + own.core.pool.readyCount)
    laterMs += 600_000
  }
  const reason = "the zygote cannot check: QEMU lacks vm_start"
  expect(own.core.zygotes.status).toEqual({ by: "clone", reason })
  expect(trials.at(-1)).toEqual({ works: false, reason })
  expect(warnings.filter((text) => text.includes("no zygote can be made"))).toHaveLength(1)
  expect((await own.call("GET", "/version")).body).toMatchObject({ starts: "clone", starts_reason: reason })
})

test("the pool serves a template that cannot be forked", async () => {
  freezeError = new AppError("unavailable", "no")
  await create("first")
  await create("second")
  await until("the pool is full", () => {
    ring()
    return own.core.pool.readyCount === 2
  })
  expect(await create("third")).toBe("pool")
})

test("memory that is short ends it; its sandboxes run on, and it is made again when there is enough", async () => {
  await create("first")
  await ready()
  await create("second")
  own.host.availableMemoryMibNow = 2 * 512 - 1
  await own.core.thermal.tick(clock.nowMs())
  await until("it has ended", () => own.host.running.size === 2)
  own.host.availableMemoryMibNow = 100_000
  laterMs += 60_000
  await ready(2)
  expect(await create("third")).toBe("fork")
})

test("after a day another takes its place, and it serves until then", async () => {
  await create("first")
  await ready()
  const [former] = made
  laterMs += zygoteAgeMaxMs
  expect(await create("second")).toBe("fork")
  await ready(2)
  await until("the former one has ended", () => !own.host.running.has(former?.process.pid ?? 0))
  expect(await create("third")).toBe("fork")
})

test("a fork that is under way when another takes its place is finished, and then the former one ends", async () => {
  await create("first")
  await ready()
  const [former] = made
  const isRunning = () => own.host.running.has(former?.process.pid ?? 0)
  const { machines } = own.host
  const { start } = machines
  const held = Promise.withResolvers<void>()
  let isHeld = false
  machines.start = async (place, from) => {
    if (isHeld || from.kind !== "template" || from.zygote !== former) return start(place, from)
    isHeld = true
    await held.promise
    if (!isRunning()) forkError = new AppError("unavailable", "the zygote has ended")
    return start(place, from)
  }
  laterMs += zygoteAgeMaxMs
  const creating = own.call("POST", "/sandboxes", { name: "second" })
  await until("its fork is under way", () => isHeld)
  expect(await create("third")).toBe("fork")
  const [id = ""] = own.core.zygotes.templateIds
  await until("another has taken its place", () => {
    ring(undefined, lingerMs)
    return made.length === 2 && own.core.zygotes.of(id) === made[1]
  })
  held.resolve()
  expect((await creating).status).toBe(201)
  expect(warnings).toEqual([])
  expect(isRunning()).toBe(true)
  ring()
  await until("the former one has ended", () => !isRunning())
})

test("one that has ended by itself is noticed at the next create, which is a clone", async () => {
  await create("first")
  await ready()
  const [zygote] = made
  if (zygote) await own.host.zygotes?.end(zygote)
  expect(await create("second")).toBe("template")
})

test("one that fails in use after its trial is made again after ever longer rests, until one has served a while", async () => {
  await create("first")
  const failInUse = async (name: string) => {
    forkError = new AppError("unavailable", "the zygote cannot fork: no")
    for (let count = 0; count < failuresMax; count++) await create(`${name}-${count}`)
    forkError = undefined
  }
  for (let count = 1; count <= 3; count++) {
    await ready(count)
    await failInUse(`round-${count}`)
    laterMs += 60_000
  }
  await ready(4)
  laterMs += servedMs
  await failInUse("round-4")
  expect(rests).toEqual([1000, 2000, 4000, 1000])
})

test("a worn-out one that cannot be replaced serves for twice its time, and then ends", async () => {
  await create("first")
  await ready()
  freezeError = new AppError("unavailable", "no")
  laterMs += 2 * zygoteAgeMaxMs - 60_000
  expect(await create("second")).toBe("fork")
  laterMs += 120_000
  expect(await create("third")).toBe("template")
  const [zygote] = made
  await until("it has ended", () => !own.host.running.has(zygote?.process.pid ?? 0))
})

test("an alarm that rings a moment early is set again for the rest of the wait", async () => {
  await create("first")
  await ready()
  own.host.running.delete(made[0]?.process.pid ?? 0)
  expect(await create("second")).toBe("template")
  expect(rests).toEqual([1000])
  // The clock stands at less than a second later.
  ring()
  const [next = { ms: 0 }] = [...alarms].filter(({ ms }) => ms <= 1000)
  expect(next.ms).toBeGreaterThan(0)
  laterMs += 1000
  await ready(2)
})

test("while memory is short none is expected, so the pool serves", async () => {
  await create("first")
  await ready()
  const [id = ""] = own.core.zygotes.templateIds
  expect(own.core.zygotes.isExpected(id)).toBe(true)
  own.core.zygotes.shed()
  expect(own.core.zygotes.isExpected(id)).toBe(false)
  laterMs += 60_000
  expect(own.core.zygotes.isExpected(id)).toBe(true)
})

test("a user's start command never runs in one", async () => {
  let from: string | undefined
  void create("own", { start_command: "true", ready_command: "true" }).then((how) => {
    from = how
  })
  await until("it is created", () => {
    // The template has a deadline, which does not pass.
    ring(1000)
    return from === "template"
  })
  expect(own.core.zygotes.templateIds).toEqual([])
  expect(made).toEqual([])
})

test("an image of others never runs in one", async () => {
  const { images } = own.host
  const { readImage } = images
  const config = { user: "", workdir: "", env: {}, entrypoint: [], cmd: [], ports: [], labels: {} }
  images.readImage = async (name) => ({ ...(await readImage(name)), config })
  expect(await create("foreign")).toBe("template")
  ring()
  expect(own.core.zygotes.templateIds).toEqual([])
  expect(made).toEqual([])
})

test("an image's own start command runs in one, held as in its template", async () => {
  const { images } = own.host
  const { readImage } = images
  images.readImage = async (name) => ({
    ...(await readImage(name)),
    programs: { start: "serve", ready: "true" },
  })
  let from: string | undefined
  void create("served").then((how) => {
    from = how
  })
  await until("it is created", () => {
    ring(1000)
    return from === "template"
  })
  await ready()
  expect(made).toHaveLength(1)
  expect(await create("second")).toBe("fork")
})

test("a daemon that stops during a trial ends the machine that was forked for it", async () => {
  const { machines, zygotes } = own.host
  let trial: number | undefined
  if (zygotes)
    zygotes.try = async ({ template }, prove) => {
      const started = await machines.start(
        { id: "trial", template, slot: 0, diskMib: 1 },
        { kind: "template" },
      )
      trial = started.machine.process.pid
      const silent = Object.assign(started.guest, { waitReady: () => Promise.withResolvers<void>().promise })
      await prove(silent).finally(() => machines.kill(started.machine))
    }
  await create("first")
  await until("the trial goes on", () => {
    ring()
    return trial !== undefined
  })
  await own.core.zygotes.empty()
  expect(own.host.running.has(trial ?? 0)).toBe(false)
  expect(own.host.running.size).toBe(1)
})
