/**
 * A model against real machines. Commands of users, the thermal loop's steps, and deaths of machines and of the daemon
 * come in an order that a seed decides; after each one the model says exactly which sandboxes and snapshots there are,
 * in which state, and what is in their memory, in their processes and on their disks.
 *
 *   SEED=7 bun test test/e2e/model.vm.test.ts                   another order
 *   SEED=7 MODEL_RUNS=40 bun test test/e2e/model.vm.test.ts     more of it: so many times up to 40 commands
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Snapshot } from "@bhatti/contract/snapshot"
import fc from "fast-check"
import { type Installation, install, until } from "../support/installation.ts"
import { markScript, readMarkers, readMarkersScript } from "../support/markers.ts"
import { machineOf, nameOfMachine, type Reply, Requests } from "../support/requests.ts"

const seed = Number(process.env["SEED"] ?? 1)
const runs = Number(process.env["MODEL_RUNS"] ?? 0)
/** Without a number of runs: as many commands as fit, the last run cut off, but not fewer than a few. */
const boundMs = process.env["BHATTI_TEST_LONG"] === "1" ? 75_000 : 25_000
const commandsMin = 30
const runsMax = 100
const commandsMax = 40
const sandboxesMax = 4
const snapshotsMax = 2
const thermalDeadline = { deadlineMs: 60_000 }

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ isForked: true, config: "warm_after: 0\ncold_after: 0\ndisk_reserve_mb: 0\n" })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

/** Content that a copy takes over. A boot id lasts as long as a kernel: it tells a resumed one from a booted one. */
type Content = { memory: string | null; disk: string | null; bootId: string }
type KnownSandbox = {
  thermal: "hot" | "warm" | "cold"
  content: Content
  /** Cold: whether it has it on disk. */
  hasMemory: boolean
  /** It last came up from its disk, and says why. */
  isBooted: boolean
  machineId: string
  labels: Record<string, string>
  keepHot: boolean
}
type KnownSnapshot = Pick<KnownSandbox, "content" | "hasMemory" | "labels" | "keepHot">

class Model {
  readonly sandboxes = new Map<string, KnownSandbox>()
  readonly snapshots = new Map<string, KnownSnapshot>()
  /** Whatever was drawn at random in a guest, or given to one as its own. */
  readonly drawn = new Set<string>()
}

// Counts over the whole test: the remains of a run must not look like another's.
let names = 0
let values = 0
let commands = 0

let endsAt = Number.POSITIVE_INFINITY
const isOver = () => runs === 0 && commands >= commandsMin && performance.now() > endsAt

type Nothing = Record<string, never>
/** The machines are the same for all runs, so there is nothing to hand on. */
type Step = fc.AsyncCommand<Model, Nothing>

function step(
  title: string,
  isPossible: (model: Model) => boolean,
  run: (model: Model) => Promise<string>,
): Step {
  let done = title
  return {
    check: (model) => !isOver() && isPossible(model),
    async run(model) {
      commands++
      done = await run(model)
      await compare(model)
    },
    toString: () => done,
  }
}

/** About one of the sandboxes that the command is possible for. */
function onSandbox(
  title: string,
  pick: number,
  run: (model: Model, name: string, known: KnownSandbox) => Promise<unknown>,
  isPossible: (known: KnownSandbox, model: Model) => boolean = () => true,
): Step {
  const possible = (model: Model) =>
    [...model.sandboxes].filter(([, known]) => isPossible(known, model)).map(([name]) => name)
  return step(
    title,
    (model) => possible(model).length > 0,
    async (model) => {
      const all = possible(model)
      const name = all[pick % all.length] ?? ""
      const known = model.sandboxes.get(name)
      if (known) await run(model, name, known)
      return `${title} ${name}`
    },
  )
}

function onSnapshot(
  title: string,
  pick: number,
  run: (model: Model, name: string, known: KnownSnapshot) => Promise<unknown>,
  isPossible: (model: Model) => boolean = () => true,
): Step {
  return step(
    title,
    (model) => model.snapshots.size > 0 && isPossible(model),
    async (model) => {
      const all = [...model.snapshots]
      const [name, known] = all[pick % all.length] ?? []
      if (name !== undefined && known) await run(model, name, known)
      return `${title} ${name}`
    },
  )
}

function ok(what: string, reply: Reply): unknown {
  if (reply.status >= 300 || reply.status === 0)
    throw new Error(`${what}: ${reply.status} ${JSON.stringify(reply.body)}`)
  return reply.body
}

const hasRoom = (model: Model) => model.sandboxes.size < sandboxesMax
const isRunning = ({ thermal }: KnownSandbox) => thermal !== "cold"

/** Each needs its guest, which wakes it: from its memory if it has that, else from its disk. */
async function look(model: Model, name: string, known: KnownSandbox): Promise<void> {
  const script = [
    readMarkersScript,
    "head -zn1 /proc/$(cat /dev/shm/pid 2>/dev/null || echo none)/cmdline 2>/dev/null | tr '\\0' '\\n' | grep . || echo -",
    "cat /proc/sys/kernel/random/boot_id /etc/machine-id; od -An -tx1 -N16 /dev/urandom",
  ].join("; ")
  const found = readMarkers(await requests.exec(name, script))
  const [running = "", bootId = "", machineId = "", random = ""] = found?.more ?? []
  const { content } = known
  const comesFromDisk = known.thermal === "cold" && !known.hasMemory
  if (comesFromDisk) {
    content.memory = null
    expect([name, bootId]).not.toEqual([name, content.bootId])
    content.bootId = bootId
  }
  known.isBooted = known.thermal === "cold" ? comesFromDisk : known.isBooted
  known.thermal = "hot"
  expect([name, found?.memory, found?.disk, running, bootId, machineId]).toEqual([
    name,
    content.memory,
    content.disk,
    content.memory ?? "-",
    content.bootId,
    known.machineId,
  ])
  expect([name, model.drawn.has(random)]).toEqual([name, false])
  model.drawn.add(random)
}

/** A new sandbox is whole, and somebody else than all before it. */
async function meet(
  model: Model,
  name: string,
  known: Omit<KnownSandbox, "machineId" | "thermal">,
): Promise<void> {
  const reply = await requests.output(name, "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname")
  const [bootId = "", machineId = "", hostName] = reply.split("\n")
  expect(hostName).toBe(name)
  expect([machineId, model.drawn.has(machineId)]).toEqual([machineId, false])
  model.drawn.add(machineId)
  expect([bootId, model.drawn.has(bootId)]).toEqual([bootId, false])
  model.drawn.add(bootId)
  const content = { ...known.content, bootId }
  const sandbox: KnownSandbox = { ...known, thermal: "hot", machineId, content }
  model.sandboxes.set(name, sandbox)
  await look(model, name, sandbox)
}

/** A copy without memory boots; with it, it goes on where its source was. */
const copied = (content: Content, hasMemory: boolean) => ({
  content: { ...content, memory: hasMemory ? content.memory : null, bootId: "" },
  hasMemory: true,
  isBooted: !hasMemory,
})

/** Gone on from a daemon's or a machine's death as its disk alone. */
function loseMemory(known: KnownSandbox): void {
  known.thermal = "cold"
  known.hasMemory = false
}

const create = (): Step =>
  step("create", hasRoom, async (model) => {
    const name = `s${++names}`
    ok(`create ${name}`, await requests.create(name))
    const content = { memory: null, disk: null, bootId: "" }
    await meet(model, name, { content, hasMemory: true, isBooted: false, labels: {}, keepHot: false })
    return `create ${name}`
  })

const createTwice = (pick: number): Step =>
  onSandbox("create again", pick, async (_model, name) => {
    expect((await requests.create(name)).status).toBe(409)
  })

const mark = (pick: number, part: "memory" | "disk"): Step =>
  onSandbox(`mark ${part} of`, pick, async (model, name, known) => {
    const value = `v${++values}`
    const start = `[ -e /dev/shm/pid ] && kill $(cat /dev/shm/pid)
      bash -c 'exec -a ${value} sleep infinity' >/dev/null 2>&1 & echo $! > /dev/shm/pid
      until grep -q ^${value} /proc/$!/cmdline; do :; done`
    // Looking before tells what waking it has made of it.
    await look(model, name, known)
    await requests.output(
      name,
      part === "memory" ? `${start}; ${markScript(part, value)}` : markScript(part, value),
    )
    known.content[part] = value
    await look(model, name, known)
  })

const use = (pick: number): Step => onSandbox("look into", pick, look)

/** Many callers wake it once, and all are served. */
const wake = (pick: number): Step =>
  onSandbox("wake", pick, async (model, name, known) => {
    const starts = Array.from({ length: 3 }, () => requests.start(name))
    const commands = Array.from({ length: 3 }, () => requests.exec(name, "echo awake"))
    for (const reply of await Promise.all(starts)) ok(`start ${name}`, reply)
    for (const reply of await Promise.all(commands))
      expect(ok(`exec in ${name}`, reply)).toMatchObject({ exit_code: 0, stdout: "awake\n" })
    await look(model, name, known)
  })

const stop = (pick: number): Step =>
  onSandbox("stop", pick, async (_model, name, known) => {
    ok(`stop ${name}`, await requests.stop(name))
    if (known.thermal !== "cold") known.hasMemory = true
    known.thermal = "cold"
  })

/** A step of the thermal loop, which nothing asks for. */
const cool = (pick: number, to: "warm" | "cold"): Step =>
  onSandbox(
    `let it become ${to}:`,
    pick,
    async (_model, name, known) => {
      const times = { warm_after: 1, cold_after: to === "cold" ? 1 : 0 }
      ok(`edit ${name}`, await requests.send("PATCH", `/sandboxes/${name}`, times))
      await until(
        `${name} is ${to}`,
        async () => (await requests.show(name))?.thermal === to,
        thermalDeadline,
      )
      const never = { warm_after: 0, cold_after: 0 }
      ok(`edit ${name}`, await requests.send("PATCH", `/sandboxes/${name}`, never))
      known.thermal = to
      known.hasMemory = true
    },
    (known) => isRunning(known) && !known.keepHot,
  )

const fork = (pick: number): Step =>
  onSandbox(
    "fork",
    pick,
    async (model, source, { content, thermal, hasMemory, labels }) => {
      const name = `s${++names}`
      ok(`fork ${source}`, await requests.create(name, { from: source }))
      const withMemory = thermal !== "cold" || hasMemory
      await meet(model, name, { ...copied(content, withMemory), labels: { ...labels }, keepHot: false })
    },
    (_known, model) => hasRoom(model),
  )

const snapshot = (pick: number): Step =>
  onSandbox(
    "snapshot of",
    pick,
    async (model, source, { content, thermal, hasMemory, labels, keepHot }) => {
      const name = `n${++names}`
      ok(`snapshot of ${source}`, await requests.send("POST", `/sandboxes/${source}/checkpoint`, { name }))
      const withMemory = thermal !== "cold" || hasMemory
      model.snapshots.set(name, {
        content: { ...content },
        hasMemory: withMemory,
        labels: { ...labels },
        keepHot,
      })
    },
    (_known, model) => model.snapshots.size < snapshotsMax,
  )

const resume = (pick: number): Step =>
  onSnapshot(
    "resume",
    pick,
    async (model, from, { content, hasMemory, labels, keepHot }) => {
      const name = `s${++names}`
      ok(`resume ${from}`, await requests.send("POST", `/snapshots/${from}/resume`, { name }))
      await meet(model, name, { ...copied(content, hasMemory), labels: { ...labels }, keepHot })
    },
    hasRoom,
  )

const forget = (pick: number): Step =>
  onSnapshot("delete snapshot", pick, async (model, name) => {
    ok(`delete ${name}`, await requests.send("DELETE", `/snapshots/${name}`))
    model.snapshots.delete(name)
  })

const edit = (pick: number, what: "name" | "label" | "keep hot" | "let cool"): Step =>
  onSandbox(`edit ${what} of`, pick, async (model, name, known) => {
    const change = (input: object) => requests.send("PATCH", `/sandboxes/${name}`, input)
    switch (what) {
      case "name": {
        const later = `s${++names}`
        ok(`rename ${name}`, await change({ name: later }))
        model.sandboxes.delete(name)
        model.sandboxes.set(later, known)
        return
      }
      case "label": {
        const value = `v${++values}`
        ok(`label ${name}`, await change({ labels_add: { team: value } }))
        known.labels["team"] = value
        return
      }
      default:
        known.keepHot = what === "keep hot"
        ok(`edit ${name}`, await change({ keep_hot: known.keepHot }))
        // A sandbox that is kept hot is woken.
        if (known.keepHot) await look(model, name, known)
    }
  })

const destroy = (pick: number): Step =>
  onSandbox("destroy", pick, async (model, name) => {
    ok(`destroy ${name}`, await requests.destroy(name))
    model.sandboxes.delete(name)
  })

const killMachine = (pick: number): Step =>
  onSandbox(
    "kill the machine of",
    pick,
    async (_model, name, known) => {
      process.kill(await machineOfName(name), "SIGKILL")
      await until(`${name} has ended`, async () => (await requests.show(name))?.status === "stopped")
      loseMemory(known)
    },
    isRunning,
  )

/** With a `pick`, a machine may die too while there is no daemon. */
const restart = (signal: "SIGTERM" | "SIGKILL", pick: number | null): Step =>
  step(
    `restart by ${signal}`,
    () => true,
    async (model) => {
      const running = [...model.sandboxes].filter(([, known]) => isRunning(known))
      const [dies, lost] = (pick !== null && running[pick % running.length]) || []
      const machine = dies === undefined ? undefined : await machineOfName(dies)
      await own.stopDaemon(signal)
      if (machine !== undefined) process.kill(machine, "SIGKILL")
      await own.startDaemon()
      if (lost) loseMemory(lost)
      const isKnownAs = (name: string, thermal: KnownSandbox["thermal"]) =>
        until(`${name} is ${thermal}`, async () => (await requests.show(name))?.thermal === thermal)
      for (const [name, known] of model.sandboxes) {
        if (known.keepHot) {
          await isKnownAs(name, "hot")
          await look(model, name, known)
          continue
        }
        if (isRunning(known)) known.thermal = "hot"
        await isKnownAs(name, known.thermal)
      }
      return `restart by ${signal}${dies === undefined ? "" : ` while ${dies} dies`}`
    },
  )

async function machineOfName(name: string): Promise<number> {
  return machineOf(own, (await requests.show(name))?.id ?? "")
}

/** Checks that the API and the host agree with the model. */
async function compare(model: Model): Promise<void> {
  const listed = await requests.list()
  const view = ({ name, status, status_reason, thermal, labels, keep_hot }: Sandbox) =>
    [name, { status, isExplained: status_reason !== null, thermal, labels, keep_hot }] as const
  const expected = [...model.sandboxes].map(([name, known]) => {
    const { thermal, hasMemory, isBooted, labels, keepHot } = known
    const isExplained = thermal === "cold" ? !hasMemory : isBooted
    const status = thermal === "cold" ? "stopped" : "running"
    return [name, { status, isExplained, thermal, labels, keep_hot: keepHot }] as const
  })
  expect(Object.fromEntries(listed.map(view))).toEqual(Object.fromEntries(expected))
  expect(await requests.leftovers()).toEqual([])
  expect(own.machines().map(nameOfMachine).toSorted()).toEqual(
    listed
      .filter(({ status }) => status === "running")
      .map(({ id }) => id)
      .toSorted(),
  )
  const snapshots = ok("snapshots", await requests.send("GET", "/snapshots")) as Snapshot[]
  expect(snapshots.map(({ name, status, has_memory }) => [name, status, has_memory])).toEqual(
    [...model.snapshots].map(([name, { hasMemory }]) => [name, "ready", hasMemory]),
  )
  expect(readdirSync(join(own.dataDir, "snapshots")).toSorted()).toEqual(
    snapshots.map(({ id }) => id).toSorted(),
  )
}

async function removeAll(): Promise<void> {
  for (const { name } of await requests.list()) ok(`destroy ${name}`, await requests.destroy(name))
  const snapshots = ok("snapshots", await requests.send("GET", "/snapshots")) as Snapshot[]
  for (const { name } of snapshots) ok(`delete ${name}`, await requests.send("DELETE", `/snapshots/${name}`))
}

const pick = fc.nat({ max: 11 })
const signal = fc.constantFrom("SIGTERM" as const, "SIGKILL" as const)
const anyStep = fc.oneof(
  { weight: 3, arbitrary: fc.constant(null).map(create) },
  { weight: 1, arbitrary: pick.map(createTwice) },
  { weight: 4, arbitrary: pick.map((one) => mark(one, "memory")) },
  { weight: 3, arbitrary: pick.map((one) => mark(one, "disk")) },
  { weight: 3, arbitrary: pick.map(use) },
  { weight: 3, arbitrary: pick.map(wake) },
  { weight: 4, arbitrary: pick.map(stop) },
  { weight: 2, arbitrary: pick.map((one) => cool(one, "warm")) },
  { weight: 1, arbitrary: pick.map((one) => cool(one, "cold")) },
  { weight: 3, arbitrary: pick.map(fork) },
  { weight: 2, arbitrary: pick.map(snapshot) },
  { weight: 2, arbitrary: pick.map(resume) },
  { weight: 1, arbitrary: pick.map(forget) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(pick, fc.constantFrom("name", "label", "keep hot", "let cool" as const))
      .map((both) => edit(...both)),
  },
  { weight: 2, arbitrary: pick.map(destroy) },
  { weight: 1, arbitrary: pick.map(killMachine) },
  { weight: 2, arbitrary: signal.map((one) => restart(one, null)) },
  { weight: 1, arbitrary: fc.tuple(signal, pick).map((both) => restart(...both)) },
)

test("whatever happens in whatever order, sandboxes and snapshots are what the model says", async () => {
  endsAt = performance.now() + boundMs
  const sequence = fc.commands([anyStep], { maxCommands: commandsMax, size: "max" })
  try {
    await fc.assert(
      fc.asyncProperty(sequence, async (steps) => {
        if (isOver()) return
        await removeAll()
        await compare(new Model())
        await fc.asyncModelRun(() => ({ model: new Model(), real: {} }), steps)
      }),
      // Making a failure smaller takes an hour on real machines.
      { seed, numRuns: runs || runsMax, endOnFailure: true },
    )
  } catch (error) {
    const isError = (line: string) => line.includes('"level":50')
    const log = own.daemonLog().split("\n").filter(isError).slice(-5).join("\n")
    throw new Error(`repeat with SEED=${seed}\n${log}`, { cause: error })
  }
  console.log(`seed ${seed}: ${commands} commands`)
  expect(commands).toBeGreaterThanOrEqual(commandsMin)
}, 36_000_000)
