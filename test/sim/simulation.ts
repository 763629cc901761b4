/**
 * The simulation: two users work with sandboxes while machines die and hang, calls fail, disks fill up and the daemon
 * crashes anywhere and starts again. The real core and a real store run on a simulated host; a seed decides everything.
 * A model knows what must be true whatever happened, and is asked whenever things have come to rest.
 */

import { AppError } from "@bhatti/contract/errors"
import { newCore } from "../../src/core/assemble.ts"
import type { Log } from "../../src/core/bounded-log.ts"
import type { Core } from "../../src/core/core.ts"
import { createSandbox } from "../../src/core/create.ts"
import { destroySandbox } from "../../src/core/destroy.ts"
import { editSandbox } from "../../src/core/edit.ts"
import { execInSandbox } from "../../src/core/processes.ts"
import { reconcile } from "../../src/core/reconcile.ts"
import { startByName, stopByName } from "../../src/core/stop-start.ts"
import { restMsMax } from "../../src/rules/back-off.ts"
import type { SandboxRecord } from "../../src/store/sandboxes.ts"
import { openStore, type Store } from "../../src/store/store.ts"
import type { Account } from "../../src/store/users.ts"
import { Life, SimulatedTime, settle } from "./life.ts"
import { Random } from "./random.ts"
import { plentyMib, World, zygoteName } from "./world.ts"

/** How rough a run is; each seed has its own. Shares of steps. */
type Weather = { fault: number; crash: number; machineEvent: number; poolSize: number; hasForks: boolean }

type Outcome<T> = { kind: "done"; value: T } | { kind: "failed"; error: unknown } | { kind: "lost" }
type Operation = { label: string; end: (outcome: Outcome<never>) => void }
type Seen = { owner: string; marker: string | null; file: string | null }

/** The users' knowledge of a sandbox. The sets hold every value that may be the true one. */
type Known = {
  user: string
  name: string
  owner: string | undefined
  sources: Known[]
  memory: Set<string | null>
  disk: Set<string | null>
  /** Commands that change it, so far and now. */
  changes: number
  changing: number
  /** How much had gone wrong in this world when its memory was last seen to be there. */
  troubleWhenSeen: number
  mayBeGone: boolean
  /** Times to live that it may have, with the moments from which they count; its copies inherit them. */
  lives: { fromMs: number; ttlMs: number }[]
}

type Change = {
  user: string
  name: string
  part: "memory" | "disk"
  value: string
  /** Sandboxes that it may have reached, and which of their changes this was, if it was the only one. */
  touched: Map<Known, number>
}

/** Every value that was there while it was going on. */
type Read = { user: string; name: string; memory: Set<string | null>; disk: Set<string | null> }

const users = ["alice", "bob"] as const
const namesPerUser = 5
const operationsAtOnce = 6
const stepsBetweenRests = 150
const restStepsMax = 20_000
const traceLines = Number(process.env["SIM_TRACE"] ?? 150)

export class Violation extends Error {}

export class Simulation {
  readonly #random: Random
  readonly #time = new SimulatedTime()
  readonly #world: World
  readonly #weather: Weather
  readonly #trace: string[] = []
  readonly #violations: string[] = []
  readonly #known = new Map<string, Known>()
  readonly #gone = new Set<string>()
  /** Sandboxes whose owner or operator was told that something went wrong with them. */
  readonly #reported = new Set<string>()
  readonly #ongoing = new Set<Operation>()
  readonly #accounts = new Map<string, Account>()
  #store!: Store
  #life = new Life()
  #core!: Core
  #isServing = false
  #trouble = 0
  /** An error that was thrown where nobody catches. */
  #broken: unknown
  #values = 0
  steps = 0
  /** Counts of events, to show that a run reached something. */
  readonly counts: Record<string, number> = {}

  constructor(seed: number) {
    this.#random = new Random(seed)
    this.#weather = {
      fault: this.#random.pick([0, 0, 0.01, 0.03]),
      crash: this.#random.pick([0, 0.002, 0.01]),
      machineEvent: this.#random.pick([0, 0.005, 0.02]),
      poolSize: this.#random.pick([0, 2, 2, 2]),
      hasForks: this.#random.chance(0.6),
    }
    this.#world = new World({
      time: this.#time,
      violation: (what) => this.#violations.push(what),
      onSpawn: (id) => this.#checkStart(id),
    })
    this.#world.hasForks = this.#weather.hasForks
  }

  /** Throws a `Violation` with the last events when something is not as it must be. */
  async run(steps: number): Promise<void> {
    this.#store = await openStore({ memory: true })
    try {
      for (const name of users) {
        const { key } = await this.#store.users.create({ name, maxSandboxes: namesPerUser })
        const account = await this.#store.users.findByKey(key)
        if (!account) throw new Error("no account")
        this.#accounts.set(name, account)
      }
      await this.#startDaemon()
      while (this.steps < steps) {
        for (let step = 0; step < stepsBetweenRests; step++) await this.#step()
        await this.#rest()
      }
      await this.#restartAndCheck()
      await this.#useAll()
      await this.#destroyAll()
      this.counts["machine forked"] = this.#world.forks.done
      this.counts["fork failed"] = this.#world.forks.failed
    } catch (error) {
      if (error instanceof Violation) throw error
      throw new Violation(this.#report(`it broke: ${Bun.inspect(error)}`))
    } finally {
      this.#life.end()
      await this.#store.close()
    }
  }

  /** Names what happened, without anything random that a seed does not repeat. */
  get trace(): string[] {
    return this.#trace
  }

  // The daemon.

  async #startDaemon(): Promise<void> {
    const life = new Life()
    this.#life = life
    this.#isServing = false
    this.#core = newCore({
      store: this.#storeOf(life),
      host: this.#world.host(life),
      log: this.#log(life),
      clock: this.#time.clockOf(life),
      settings: {
        thermal: { warmAfterMs: 30_000, coldAfterMs: 60_000, timerWindowMs: 60_000 },
        diskReserveMib: 1024,
        memoryReserveMib: 512,
        templateDiskMib: 8192,
        pool: { sizeMax: this.#weather.poolSize, memoryMibMax: 1024 },
        publicAddress: { scheme: "http", domain: "localhost", port: 8080 },
        guestDefaults: {},
      },
    })
    this.#hearEnds(life)
    const troubleBefore = this.#trouble
    this.#begin(
      "reconcile",
      () => reconcile(this.#core),
      (outcome) => {
        if (outcome.kind === "done") {
          this.#isServing = true
          this.#begin(
            "settle",
            () => outcome.value.settled,
            () => undefined,
          )
        }
        // It ends with an error, and its supervisor starts it again.
        if (outcome.kind !== "failed") return
        if (this.#trouble === troubleBefore)
          this.#fail(`the daemon does not start: ${Bun.inspect(outcome.error)}`)
        this.#needsStart = true
        this.#endLife("gave up at its start")
      },
    )
    await settle()
  }

  #needsStart = false

  async #crash(): Promise<void> {
    this.#count("crash")
    this.#endLife("crashes")
    if (this.#random.chance(0.1)) {
      this.#note("the host reboots")
      this.#world.reboot()
      this.#time.reboot()
    }
    await this.#startDaemon()
  }

  #endLife(how: string): void {
    this.#note(`the daemon ${how}`)
    this.#trouble++
    this.#life.end()
    this.#world.onDaemonEnd(this.#life)
    for (const operation of [...this.#ongoing]) operation.end({ kind: "lost" })
    this.#ongoing.clear()
  }

  /**
   * The store outlives the daemon; each call to it is a place where the daemon may die, and each write one that may
   * fail.
   */
  #storeOf(life: Life): Store {
    const gated = <T extends object>(part: T, name: string): T =>
      new Proxy(part, {
        get: (target, property) => {
          const method: unknown = Reflect.get(target, property, target)
          if (typeof method !== "function") return method
          const isWrite = /^(add|claim|set|edit|remove)/.test(String(property))
          return async (...parameters: unknown[]) => {
            await life.step(`${name}.${String(property)}`, isWrite ? [storeFull] : [])
            this.#hear(property, parameters)
            const result: unknown = await method.apply(target, parameters)
            if (isWrite) await life.step(`${name}.${String(property)} done`)
            return result
          }
        },
      })
    return {
      ...this.#store,
      sandboxes: gated(this.#store.sandboxes, "sandboxes"),
      lifetimes: gated(this.#store.lifetimes, "lifetimes"),
      publishedPorts: gated(this.#store.publishedPorts, "ports"),
      snapshots: gated(this.#store.snapshots, "snapshots"),
      close: async () => undefined,
    }
  }

  /** A reason that stands in a sandbox's state is one that its owner sees. */
  #hear(property: string | symbol, [id, state]: unknown[]): void {
    const reason = property === "setState" && (state as { reason?: string | null }).reason
    if (reason) this.#reported.add(String(id))
  }

  #log(life: Life): Log {
    const hear = (fields: Record<string, unknown>, message: string) => {
      if (life.isOver) return
      if (typeof fields["sandbox"] === "string") this.#reported.add(fields["sandbox"])
      for (const error of [fields["error"], fields["cause"]]) {
        if (error !== undefined && !isExpected(error)) {
          this.#violations.push(`"${message}" logged a bug: ${Bun.inspect(error)}`)
        }
      }
    }
    return { info() {}, warn: hear, error: hear }
  }

  // A step.

  async #step(): Promise<void> {
    this.steps++
    if (this.#needsStart) {
      this.#needsStart = false
      await this.#startDaemon()
    }
    const random = this.#random
    if (random.chance(this.#weather.crash)) await this.#crash()
    else if (random.chance(this.#weather.machineEvent)) this.#machineEvent()
    else if (this.#isServing && this.#ongoing.size < operationsAtOnce && random.chance(0.25))
      this.#beginSomething()
    else if (random.chance(0.05)) this.#passTime(random.pick([500, 5000, 40_000, 90_000]))
    else if (random.chance(0.005)) this.#time.set(random.pick([-86_400_000, 86_400_000, 3_600_000]))
    else this.#goOn({ faults: true })
    await settle()
    this.#world.run()
    this.#checkNow()
  }

  /** Lets a random waiting call go on, or fail. */
  #goOn({ faults }: { faults: boolean }): void {
    const { waiting } = this.#life
    if (waiting.length === 0) return
    const one = this.#life.take(this.#random.integer(waiting.length))
    if (faults && one.fail && this.#random.chance(this.#weather.fault)) {
      const error = this.#random.pick(one.errors)()
      this.#trouble++
      this.#count("fault")
      this.#note(`${one.label} FAILS: ${error instanceof Error ? error.message : String(error)}`)
      one.fail(error)
    } else {
      this.#note(one.label)
      one.go()
    }
  }

  #passTime(ms: number): void {
    this.#note(`${ms} ms pass`)
    this.#time.advance(this.#life, ms)
    if (this.#isServing) {
      this.#begin(
        "thermal tick",
        () => this.#core.thermal.tick(this.#time.nowMs),
        () => undefined,
      )
      this.#begin(
        "lifetime tick",
        () => this.#core.lifetimes.tick(),
        () => undefined,
      )
    }
  }

  /** The end of a lifetime is announced first, and comes never early. */
  #hearEnds(life: Life): void {
    const { events } = this.#core
    const record = events.record.bind(events)
    events.record = (event) => {
      record(event)
      if (life.isOver || event.sandbox === undefined) return
      const { id, name } = event.sandbox
      if (event.type === "lifetime.ending") this.#announced.add(id)
      if (event.type !== "lifetime.ended") return
      this.#count("lifetime ended")
      const known = this.#known.get(id) ?? this.#lost.find((one) => one.name === name)
      if (!this.#announced.has(id)) this.#violations.push(`the end of ${name} was not announced`)
      if (!known) return
      const isDue = known.lives.some(({ fromMs, ttlMs }) => fromMs + ttlMs <= this.#time.nowMs)
      if (!isDue) this.#violations.push(`${name} ends early`)
      if (event.meta?.["action"] === "destroy") known.mayBeGone = true
    }
  }

  readonly #announced = new Set<string>()

  #machineEvent(): void {
    const processes = [...this.#world.processes.values()]
    if (processes.length === 0) return
    const process = this.#random.pick(processes)
    if (this.#random.chance(0.35)) return this.#cannotStart(process.name)
    if (this.#random.chance(0.1)) return this.#runShortOfMemory()
    const { snapshot } = process.directory
    const what = this.#random.weighted({ dies: 3, hangs: 2, "goes on": 3, "loses its snapshot": 1 })
    this.#trouble++
    this.#count(`machine ${what}`)
    this.#note(`a machine ${what} (slot ${process.slot})`)
    if (what === "dies") this.#world.end(process)
    if (what === "hangs") process.isHung = true
    if (what === "goes on") process.isHung = false
    if (what === "loses its snapshot" && snapshot) snapshot.damage = this.#random.pick(["visible", "hidden"])
  }

  /** From its end on, until everybody has come to rest; whoever asks for it asks more than once. */
  #cannotStart(id: string): void {
    const known = this.#known.get(id)
    if (!known) return
    this.#trouble++
    this.#note(`${known.name} cannot be started`)
    this.#world.unstartable.add(id)
    const process = this.#world.named(id)
    if (process) this.#world.end(process)
    for (let count = 0; count < 6; count++) this.#read(known.user, known.name)
    for (let count = 0; count < 2; count++) this.#start(known.user, known.name, { force: true })
  }

  /** Until everybody has come to rest. Some of what is to start has no room, or nothing has. */
  #runShortOfMemory(): void {
    this.#trouble++
    this.#count("short of memory")
    this.#world.availableMemoryMib = this.#random.pick([700, 540, 100])
    this.#note(`the host has ${this.#world.availableMemoryMib} MiB of memory`)
  }

  // The users' actions.

  #beginSomething(): void {
    const user = this.#random.pick(users)
    const name = `${user}-${this.#random.integer(namesPerUser)}`
    const what = this.#random.weighted({
      create: 8,
      mark: 8,
      write: 5,
      read: 8,
      stop: 5,
      start: 4,
      force: 1,
      storm: 2,
      fork: 4,
      edit: 2,
      destroy: 4,
      meddle: 1,
    })
    this.#count(what)
    switch (what) {
      case "create":
        return this.#create(user, name, undefined)
      case "fork":
        return this.#create(user, `${user}-${this.#random.integer(namesPerUser)}`, name)
      case "mark":
      case "write":
        return this.#change(user, name, what)
      case "read":
        return this.#read(user, name)
      case "stop":
        return this.#begin(
          `stop ${name}`,
          () => stopByName(this.#core, this.#account(user), name),
          this.#expected,
        )
      case "start":
        return this.#start(user, name, { force: false })
      case "force":
        return this.#start(user, name, { force: true })
      case "storm":
        for (let caller = 0; caller < 12; caller++) {
          if (caller % 2 === 0) this.#read(user, name)
          else this.#start(user, name, { force: false })
        }
        return
      case "edit": {
        const life = this.#aLife(0.5)
        const changes = { keepHot: this.#random.chance(0.3), allowCold: this.#random.chance(0.8), ...life }
        for (const known of this.#ofName(user, name)) this.#mayLive(known, life)
        return this.#begin(
          `edit ${name}`,
          () => editSandbox(this.#core, this.#account(user), name, changes),
          this.#expected,
        )
      }
      case "destroy":
        return this.#destroy(user, name)
      case "meddle":
        return this.#meddle(user)
    }
  }

  #aLife(share: number): { ttlSec: number; onTtl: "pause" | "destroy" | "keep" } | undefined {
    if (!this.#random.chance(share)) return undefined
    return {
      ttlSec: this.#random.pick([20, 90, 300]),
      onTtl: this.#random.pick(["pause", "destroy", "keep"]),
    }
  }

  #mayLive(known: Known, life: { ttlSec: number } | undefined): void {
    if (life) known.lives.push({ fromMs: this.#time.nowMs, ttlMs: life.ttlSec * 1000 })
  }

  #start(user: string, name: string, { force }: { force: boolean }): void {
    this.#begin(
      `${force ? "force" : "start"} ${name}`,
      () => startByName(this.#core, this.#account(user), name, { force }),
      this.#expected,
    )
  }

  #create(user: string, name: string, from: string | undefined): void {
    const source = from === undefined ? [] : this.#ofName(user, from)
    const known: Known = {
      user,
      name,
      owner: undefined,
      sources: source,
      memory: new Set(from === undefined ? [null] : source.flatMap((one) => [...one.memory])),
      disk: new Set(from === undefined ? [null] : source.flatMap((one) => [...one.disk])),
      changes: 0,
      changing: 0,
      troubleWhenSeen: Math.min(this.#trouble, ...source.map((one) => one.troubleWhenSeen)),
      mayBeGone: [...this.#ongoing].some(({ label }) => label === `destroy ${name}`),
      lives: source.flatMap(({ lives }) => lives.map(({ ttlMs }) => ({ fromMs: this.#time.nowMs, ttlMs }))),
    }
    const life = this.#aLife(0.3)
    this.#mayLive(known, life)
    const inMaking = { known, from: from === undefined ? undefined : `${user} ${from}` }
    this.#making.add(inMaking)
    // A change that is on its way to that name may reach this one.
    for (const change of this.#changesNow)
      if (change.user === user && change.name === name) this.#touch(change, known)
    for (const read of this.#readsNow) {
      if (read.user !== user || read.name !== name) continue
      for (const value of known.memory) read.memory.add(value)
      for (const value of known.disk) read.disk.add(value)
    }
    for (const value of known.memory) this.#mayReachCopies(known, "memory", value)
    for (const value of known.disk) this.#mayReachCopies(known, "disk", value)
    const input = { name, ...(from !== undefined && { from }), ...life }
    this.#begin(
      `create ${name}${from === undefined ? "" : ` from ${from}`}`,
      () => createSandbox(this.#core, this.#account(user), input),
      (outcome) => {
        this.#making.delete(inMaking)
        if (outcome.kind === "done") this.#known.set(outcome.value.sandbox.id, known)
        // It may exist, and will be met in the store then.
        else if (outcome.kind === "lost") this.#lost.push(known)
        else this.#expected(outcome)
      },
    )
  }

  readonly #making = new Set<{ known: Known; from: string | undefined }>()
  readonly #lost: Known[] = []

  readonly #changesNow = new Set<Change>()

  #touch(change: Change, known: Known): void {
    for (const read of this.#readsNow) {
      if (read.user === change.user && read.name === change.name) read[change.part].add(change.value)
    }
    known.changes++
    // After two changes at once nobody knows which was last.
    change.touched.set(known, known.changing === 0 ? known.changes : 0)
    known.changing++
    known[change.part].add(change.value)
  }

  /** A copy that is being made may have the value or not, and so may a copy of that copy. */
  #mayReachCopies(source: Pick<Known, "user" | "name">, part: Change["part"], value: string | null): void {
    for (const { known, from } of this.#making) {
      if (from !== `${source.user} ${source.name}` || known[part].has(value)) continue
      known[part].add(value)
      for (const read of this.#readsNow)
        if (read.user === known.user && read.name === known.name) read[part].add(value)
      this.#mayReachCopies(known, part, value)
    }
  }

  #change(user: string, name: string, what: "mark" | "write"): void {
    const part = what === "mark" ? "memory" : "disk"
    const change: Change = { user, name, part, value: `${what}-${++this.#values}`, touched: new Map() }
    const trouble = this.#trouble
    this.#changesNow.add(change)
    for (const known of this.#ofName(user, name)) this.#touch(change, known)
    this.#mayReachCopies({ user, name }, part, change.value)
    this.#begin(
      `${what} ${name} ${change.value}`,
      () => this.#exec(user, name, [what, change.value]),
      (outcome) => {
        this.#changesNow.delete(change)
        for (const known of change.touched.keys()) known.changing--
        if (outcome.kind !== "done") return this.#expected(outcome)
        this.#count("done")
        const found = this.#identify(outcome.value, user, name)
        if (!found || change.touched.get(found) !== found.changes || found.changing > 0) return
        found[part] = new Set([change.value])
        if (what === "mark") found.troubleWhenSeen = trouble
      },
    )
  }

  #read(user: string, name: string): void {
    const before = new Map(
      this.#ofName(user, name).map((known) => [known, known.changing === 0 ? known.changes : -1]),
    )
    const candidates = [...before.keys()]
    const read: Read = {
      user,
      name,
      memory: new Set(candidates.flatMap(({ memory }) => [...memory])),
      disk: new Set(candidates.flatMap(({ disk }) => [...disk])),
    }
    const trouble = this.#trouble
    this.#readsNow.add(read)
    this.#begin(
      `read ${name}`,
      () => this.#exec(user, name, ["read"]),
      (outcome) => {
        this.#readsNow.delete(read)
        if (outcome.kind !== "done") return this.#expected(outcome)
        const { marker, file } = outcome.value
        const known = this.#identify(outcome.value, user, name)
        if (!known) return
        if (!known.disk.has(file) && !read.disk.has(file)) {
          this.#fail(`${name} has ${file} on disk instead of ${[...known.disk]}`)
        }
        const isAlone = known.changing === 0 && before.get(known) === known.changes
        if (!known.memory.has(marker) && !read.memory.has(marker)) this.#checkLoss(known, marker, isAlone)
        if (!isAlone) return
        known.memory = new Set([marker])
        known.disk = new Set([file])
        known.troubleWhenSeen = trouble
      },
    )
  }

  readonly #readsNow = new Set<Read>()

  /** Memory is lost only after something went wrong, and not silently. */
  #checkLoss(known: Known, marker: string | null, isAlone: boolean): void {
    const was = [...known.memory].join(" or ")
    if (marker !== null) return this.#fail(`${known.name} has ${marker} in memory instead of ${was}`)
    if (isAlone && known.troubleWhenSeen === this.#trouble)
      this.#fail(`${known.name} lost ${was} though nothing went wrong`)
    if (!this.#wasTold(known)) this.#fail(`${known.name} lost ${was} and nobody was told`)
    this.#count("memory lost")
  }

  /** A copy never had what its source had lost. */
  #wasTold(known: Known): boolean {
    const id = [...this.#known].find(([, one]) => one === known)?.[0]
    return id === undefined || this.#reported.has(id) || known.sources.some((one) => this.#wasTold(one))
  }

  #destroy(user: string, name: string): void {
    const targets = this.#ofName(user, name)
    for (const known of targets) known.mayBeGone = true
    const ids = [...this.#known].filter(([, known]) => targets.includes(known)).map(([id]) => id)
    for (const { known } of this.#making)
      if (known.user === user && known.name === name) known.mayBeGone = true
    this.#begin(
      `destroy ${name}`,
      () => destroySandbox(this.#core, this.#account(user), name),
      (outcome) => {
        if (outcome.kind !== "done") return this.#expected(outcome)
        for (const id of ids) {
          this.#gone.add(id)
          this.#known.delete(id)
        }
      },
    )
  }

  /** Another user's sandbox does not exist, by name or by id. */
  #meddle(user: string): void {
    const others = [...this.#known].filter(([, known]) => known.user !== user)
    if (others.length === 0) return
    const [id, { name }] = this.#random.pick(others)
    const account = this.#account(user)
    const target = this.#random.pick([id, name])
    const act = this.#random.pick([
      () => destroySandbox(this.#core, account, target),
      () => stopByName(this.#core, account, target),
      () => this.#exec(user, target, ["read"]),
      () => createSandbox(this.#core, account, { name: `${user}-0`, from: target }),
    ])
    this.#begin(`${user} meddles with ${name}`, act as () => Promise<unknown>, (outcome) => {
      const isRefused =
        outcome.kind === "lost" ||
        (outcome.kind === "failed" && outcome.error instanceof AppError && outcome.error.code === "not_found")
      if (!isRefused) this.#fail(`${user} reached ${name} of another user: ${Bun.inspect(outcome)}`)
    })
  }

  async #exec(user: string, name: string, argv: string[]): Promise<Seen> {
    const { process, result } = await execInSandbox(this.#core, this.#account(user), name, {
      command: { argv },
      timeoutSec: undefined,
    })
    const [text] = await Promise.all([readAll(process.output), result])
    return JSON.parse(text) as Seen
  }

  /** Which sandbox answered: every one has an identity of its own, and keeps it. */
  #identify({ owner }: Seen, user: string, name: string): Known | undefined {
    const candidates = [...this.#known.values()]
    const known = candidates.find((one) => one.owner === owner)
    if (known) {
      if (known.user !== user || known.name !== name) this.#fail(`${name} answers as ${known.name}`)
      return known
    }
    const fresh = candidates.filter(
      (one) => one.user === user && one.name === name && one.owner === undefined,
    )
    const [only] = fresh
    if (fresh.length === 1 && only) only.owner = owner
    return fresh.length === 1 ? only : undefined
  }

  #begin<T>(label: string, work: () => Promise<T>, end: (outcome: Outcome<T>) => void): void {
    this.#note(`> ${label}`)
    const operation: Operation = { label, end }
    this.#ongoing.add(operation)
    const finish = (outcome: Outcome<T>) => {
      if (!this.#ongoing.delete(operation)) return
      this.#note(`< ${label}: ${outcome.kind === "failed" ? describe(outcome.error) : outcome.kind}`)
      try {
        end(outcome)
      } catch (error) {
        this.#broken ??= error
      }
    }
    work().then(
      (value) => finish({ kind: "done", value }),
      (error: unknown) => finish({ kind: "failed", error }),
    )
  }

  /** A failure must be one that a caller can act on; anything else is a bug. */
  readonly #expected = (outcome: Outcome<unknown>): void => {
    if (outcome.kind === "done") this.#count("done")
    if (outcome.kind === "failed" && outcome.error instanceof AppError && outcome.error.retryAfterSec)
      this.#count("refused for now")
    if (outcome.kind === "failed" && !isExpected(outcome.error)) {
      this.#fail(`a bug came out: ${Bun.inspect(outcome.error)}`)
    }
  }

  #account(user: string): Account {
    const account = this.#accounts.get(user)
    if (!account) throw new Error(`no user ${user}`)
    return account
  }

  /** All that a command to that name may reach, those in the making and those of unknown fate too. */
  #ofName(user: string, name: string): Known[] {
    const all = [...this.#known.values(), ...this.#lost, ...[...this.#making].map(({ known }) => known)]
    return all.filter((known) => known.user === user && known.name === name)
  }

  // Invariants.

  #checkNow(): void {
    if (this.#broken !== undefined) throw this.#broken
    const [first] = this.#violations
    if (first !== undefined) this.#fail(first)
  }

  /** Everybody finishes without anything more going wrong; then all must fit together. */
  async #rest(): Promise<void> {
    this.#note("rest")
    await this.#drain()
    this.#world.unstartable.clear()
    this.#world.availableMemoryMib = plentyMib
    await this.#checkFit({ isStrict: false })
    if (this.#random.chance(0.5)) await this.#restartAndCheck()
    if (this.#random.chance(0.3)) await this.#useAll()
    this.#note("rest is over")
  }

  async #drain(): Promise<void> {
    for (let step = 0; step < restStepsMax; step++) {
      if (this.#needsStart) {
        this.#needsStart = false
        await this.#startDaemon()
      }
      await settle()
      this.#checkNow()
      if (this.#life.waiting.length > 0) this.#goOn({ faults: false })
      else if (this.#ongoing.size === 0) return
      else
        this.#fail(`nothing moves, and these wait for ever: ${[...this.#ongoing].map(({ label }) => label)}`)
      this.#world.run()
    }
    this.#fail("it does not come to rest")
  }

  /** After a restart without trouble nothing may be left in between. */
  async #restartAndCheck(): Promise<void> {
    // An operator ends a process that hangs for ever.
    for (const process of [...this.#world.processes.values()]) if (process.isHung) this.#world.end(process)
    this.#endLife("is restarted")
    await this.#startDaemon()
    await this.#drain()
    if (!this.#isServing) this.#fail("the daemon does not serve")
    await this.#checkFit({ isStrict: true })
  }

  async #checkFit({ isStrict }: { isStrict: boolean }): Promise<void> {
    const records = await this.#store.sandboxes.listOnHost()
    const pooled = new Set<string>(await this.#store.sandboxes.listPooledOnHost())
    this.#meetLost(records)
    const byId = new Map<string, SandboxRecord>(records.map((record) => [record.id, record]))
    const isCalm = this.#weather.fault === 0 && this.#weather.machineEvent === 0

    for (const [id, known] of this.#known) {
      if (byId.has(id)) continue
      if (!known.mayBeGone) this.#fail(`${known.name} was answered as created and is lost`)
      this.#known.delete(id)
    }
    for (const id of this.#gone) {
      if (byId.has(id)) this.#fail("a destroyed sandbox has a row")
      if (this.#world.directories.has(id)) this.#fail("a destroyed sandbox has a directory")
      if (this.#world.named(id)) this.#fail("a destroyed sandbox has a machine")
    }
    const slots = records.map(({ slot }) => slot)
    if (new Set(slots).size !== slots.length) this.#fail("two sandboxes have one slot")

    for (const id of this.#world.directories.keys()) {
      const isOurs = byId.has(id) || pooled.has(id) || id.startsWith(zygoteName)
      if (!isOurs && isStrict) this.#fail("a directory belongs to nobody")
    }
    for (const process of this.#world.processes.values()) {
      if (process.name === "template" && !isStrict) continue
      if (process.name.startsWith(zygoteName)) {
        if (process.startedBy !== this.#life && isStrict) this.#fail("a zygote outlives its daemon")
        continue
      }
      const record = byId.get(process.name)
      if (!record && !pooled.has(process.name)) this.#fail(`a machine belongs to nobody: ${process.name}`)
      if (record?.state.kind === "cold") this.#fail(`${record.name} is cold and has a machine`)
    }
    for (const record of records) this.#checkRecord(record, { isStrict: isStrict || isCalm })
    for (const user of users) {
      const own = await this.#store.sandboxes.listOf(this.#account(user))
      if (own.some(({ name }) => !name.startsWith(user))) this.#fail(`${user} sees what is another user's`)
    }
  }

  #checkRecord(record: SandboxRecord, { isStrict }: { isStrict: boolean }): void {
    const { state, name } = record
    const process = this.#world.named(record.id)
    const directory = this.#world.directories.get(record.id)
    switch (state.kind) {
      case "hot":
      case "warm":
        if (!directory?.disk) this.#fail(`${name} is ${state.kind} and has no disk`)
        if (!isStrict) return
        if (process?.pid !== state.machine.process.pid)
          this.#fail(`${name} is ${state.kind} without its machine`)
        if (process.isPaused !== (state.kind === "warm"))
          this.#fail(`${name} is ${state.kind}, its machine is not`)
        if (process.memoryBase !== state.machine.memoryBase) this.#fail(`${name} does not know its memory`)
        if (directory.snapshot) this.#fail(`${name} runs and keeps an old snapshot`)
        if (!this.#core.guests.has(record.id)) this.#fail(`${name} runs and nobody listens to it`)
        return
      case "cold":
        if (!directory?.disk) this.#fail(`${name} is cold and has no disk`)
        if (state.hasSnapshot && !directory.snapshot) this.#fail(`${name} says it has a snapshot`)
        if (state.hasSnapshot && directory.snapshot?.diskVersion !== directory.disk.version) {
          this.#fail(`the snapshot of ${name} does not fit its disk`)
        }
        return
      default:
        if (isStrict) this.#fail(`${name} is left ${state.kind}`)
    }
  }

  /** Creates that nobody was told the end of: what exists now is what they made. */
  #meetLost(records: SandboxRecord[]): void {
    const isUnfinished = ({ state }: SandboxRecord) =>
      state.kind === "creating" || state.kind === "destroying"
    // Remains of a failed create go at the next start at the latest.
    const names = new Set(records.filter(isUnfinished).map(({ name }) => name))
    const lost = this.#lost.splice(0)
    this.#lost.push(...lost.filter(({ name }) => names.has(name)))
    for (const record of records) {
      const { id, name } = record
      if (this.#known.has(id) || isUnfinished(record)) continue
      const known = lost.find((one) => one.name === name)
      if (!known) continue
      // Which of several it was is not known.
      for (const other of lost.filter((one) => one.name === name)) {
        for (const value of other.memory) known.memory.add(value)
        for (const value of other.disk) known.disk.add(value)
      }
      known.mayBeGone = false
      this.#known.set(id, known)
    }
  }

  /** A sandbox that failed again and again is not started for everybody who asks. */
  #checkStart(id: string): void {
    const name = this.#known.get(id)?.name
    const failed = this.#core.failedStarts.find(id as SandboxRecord["id"])
    if (name === undefined || !failed || failed.backOffSec === 0) return
    if (![...this.#ongoing].some(({ label }) => label === `force ${name}`))
      this.#violations.push(`${name} is started while it rests for ${failed.backOffSec} s more`)
    this.#count("forced")
  }

  /** Every sandbox can be used now, by a plain command, whatever happened to it before. */
  async #useAll(): Promise<void> {
    this.#passTime(restMsMax)
    for (const process of [...this.#world.processes.values()]) if (process.isHung) this.#world.end(process)
    await this.#drain()
    for (const [id, { user, name }] of [...this.#known]) {
      const record = await this.#store.sandboxes.get(id as SandboxRecord["id"])
      if (!record || record.state.kind === "destroying" || record.state.kind === "creating") continue
      const troubleBefore = this.#trouble
      let isAnswered = false
      this.#read(user, name)
      await this.#drain()
      this.#begin(
        `use ${name}`,
        () => this.#exec(user, name, ["read"]),
        (outcome) => {
          isAnswered = outcome.kind === "done"
          this.#expected(outcome)
        },
      )
      await this.#drain()
      if (!isAnswered && this.#trouble === troubleBefore) this.#fail(`${name} cannot be used any more`)
    }
  }

  async #destroyAll(): Promise<void> {
    for (const user of users) {
      for (const { name } of await this.#store.sandboxes.listOf(this.#account(user)))
        this.#destroy(user, name)
    }
    await this.#drain()
    await this.#restartAndCheck()
    if (this.#world.processes.size > 0 || this.#world.directories.size > 0) {
      this.#fail(
        `left after everything was destroyed: ${[...this.#world.processes.values()].map(({ name }) => name)} ${[...this.#world.directories.keys()]}`,
      )
    }
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1
  }

  #note(what: string): void {
    this.#trace.push(`${this.steps} ${what}`)
    if (this.#trace.length > traceLines * 2) this.#trace.splice(0, traceLines)
  }

  #report(what: string): string {
    return `${what}\nweather ${JSON.stringify(this.#weather)}\n${this.#trace.slice(-traceLines).join("\n")}\n${what}`
  }

  #fail(what: string): never {
    throw new Violation(this.#report(what))
  }
}

/** Accepts errors that a caller can act on, and those that the simulation itself threw. */
function isExpected(error: unknown): boolean {
  if (error instanceof AppError) return error.code !== "internal"
  if (error instanceof SuppressedError) return isExpected(error.error) && isExpected(error.suppressed)
  return error instanceof Error && error.message.startsWith("injected")
}

function describe(error: unknown): string {
  return error instanceof AppError ? `${error.code}, ${error.message}` : String(error)
}

function storeFull(): Error {
  return Object.assign(new Error("injected: the database is full"), { code: "SQLITE_FULL" })
}

async function readAll(output: AsyncIterable<{ bytes: Uint8Array }>): Promise<string> {
  let text = ""
  for await (const { bytes } of output) text += Buffer.from(bytes).toString()
  return text
}
