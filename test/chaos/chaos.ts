/**
 * Chaos on real machines: sandboxes are created, used, stopped, woken, copied and destroyed while their machines and
 * the daemon are killed or frozen and the disk fills up. A seed decides what happens; a model knows what each sandbox
 * must have on disk and in memory, which only the end of its own machine takes from it. At the end nothing is lost,
 * nothing is left, and no template has changed.
 */

import { rmSync } from "node:fs"
import { join } from "node:path"
import type { Event } from "@bhatti/contract/event"
import { Random } from "../sim/random.ts"
import { type Installation, install } from "../support/installation.ts"
import { markScript, readMarkers, readMarkersScript } from "../support/markers.ts"
import { nameOfMachine, type Reply, Requests } from "../support/requests.ts"
import { templateHashes } from "../support/templates.ts"

const sandboxesMax = 5
const diskMib = 4000

type Known = {
  /** Every value that may be the true one; null: nothing was written. */
  memory: Set<string | null>
  disk: Set<string | null>
  id: string
  /** Its machine, or that of the sandbox it is a copy of, was killed since its memory was last seen. */
  mayHaveLost: boolean
  /** A copy that was not looked into yet: what its source had lost by then it never had. */
  isUnseenCopy: boolean
}

export type ChaosResult = { rounds: number; counts: Record<string, number> }

export async function chaos(options: {
  seed: number
  isOver: (rounds: number, kills: { machines: number; daemons: number }) => boolean
  report: (line: string) => void
}): Promise<ChaosResult> {
  const config = "warm_after: 2\ncold_after: 4\ndisk_reserve_mb: 0\n"
  await using own = await install({ config, diskMib })
  try {
    const before = templateHashes(own)
    const driver = new Chaos(own, options)
    let rounds = 0
    for (; !options.isOver(rounds, driver.kills); rounds++) await driver.round()
    await driver.finish()
    const after = templateHashes(own)
    for (const [path, hash] of Object.entries(before)) {
      if (after[path] !== hash) throw new Error(`${path} has changed`)
    }
    return { rounds, counts: driver.counts }
  } catch (error) {
    const lines = own.daemonLog().split("\n")
    const errors = lines.filter((line) => line.includes('"level":50'))
    options.report([...errors.slice(-5), "the daemon's last words:", ...lines.slice(-20)].join("\n"))
    throw error
  }
}

class Chaos {
  readonly counts: Record<string, number> = {}
  readonly #own: Installation
  readonly #requests: Requests
  readonly #random: Random
  readonly #report: (line: string) => void
  readonly #known = new Map<string, Known>()
  /** Checks that have to wait until the daemon runs again. */
  readonly #afterwards: (() => Promise<void>)[] = []
  /** Ids of the sandboxes whose machine was killed. */
  readonly #killed = new Set<string>()
  #values = 0

  constructor(own: Installation, options: { seed: number; report: (line: string) => void }) {
    this.#own = own
    this.#requests = new Requests(own)
    this.#random = new Random(options.seed)
    this.#report = options.report
  }

  get kills(): { machines: number; daemons: number } {
    return { machines: this.counts["trouble: machine"] ?? 0, daemons: this.counts["trouble: daemon"] ?? 0 }
  }

  async round(): Promise<void> {
    const random = this.#random
    const what = random.weighted({
      create: 4,
      mark: 6,
      write: 4,
      stop: 4,
      wake: 4,
      read: 6,
      fork: 2,
      destroy: 2,
    })
    const trouble = random.weighted({ nothing: 12, machine: 3, freeze: 2, daemon: 2, disk: 1 })
    this.#count(what)
    const going = this.#act(what)
    if (trouble !== "nothing") {
      this.#count(`trouble: ${trouble}`)
      this.#report(`${what}, and trouble with the ${trouble}`)
      // Anywhere in what is going on.
      await Bun.sleep(random.integer(400))
      if (trouble === "machine") this.#killMachine()
      if (trouble === "freeze") await this.#freezeMachine(going)
      if (trouble === "daemon") await this.#own.stopDaemon("SIGKILL")
      if (trouble === "disk") await this.#fillDisk()
    }
    await going
    if (this.#own.daemonExitCode() !== null) await this.#own.startDaemon()
    for (const look of this.#afterwards.splice(0)) await look()
    await this.#compare()
  }

  /** Everything is still there and can be used; then everything goes. */
  async finish(): Promise<void> {
    for (const name of this.#known.keys()) await this.#read(name)
    for (const name of [...this.#known.keys()]) await this.#destroy(name)
    const left = [
      ...(await this.#requests.list()).map(({ name }) => name),
      ...(await this.#requests.leftovers()),
    ]
    if (left.length > 0) throw new Error(`left over: ${left.join(", ")}`)
  }

  async #act(what: string): Promise<void> {
    const names = [...this.#known.keys()]
    if (what === "create" || names.length === 0) return this.#create(undefined)
    const name = this.#random.pick(names)
    switch (what) {
      case "fork":
        return this.#create(name)
      case "mark":
        return this.#change(name, "memory")
      case "write":
        return this.#change(name, "disk")
      case "read":
        return this.#read(name)
      case "stop":
        return this.#expect(`stop ${name}`, await this.#requests.stop(name))
      case "wake": {
        const starts = Array.from({ length: 4 }, () => this.#requests.start(name))
        for (const reply of await Promise.all(starts)) this.#expect(`start ${name}`, reply)
        return
      }
      default:
        return this.#destroy(name)
    }
  }

  async #create(from: string | undefined): Promise<void> {
    if (this.#known.size >= sandboxesMax) return
    const name = `s${++this.#values}`
    const source = from === undefined ? undefined : this.#known.get(from)
    const reply = await this.#requests.create(name, from === undefined ? {} : { from })
    this.#expect(`create ${name}`, reply)
    if (reply.status !== 201 && reply.status !== 0) {
      this.#afterwards.push(() => this.#removeRefused(name))
      return
    }
    // The client gave up while the daemon lives, as for a source that stays frozen: the daemon rolls the create back.
    if (reply.status === 0 && this.#own.daemonExitCode() === null) {
      this.#afterwards.push(async () => void (await this.#requests.destroy(name)))
      return
    }
    // Without an answer it may be there all the same.
    this.#afterwards.push(async () => {
      const made = await this.#requests.show(name)
      if (!made) return
      this.#known.set(name, {
        id: made.id,
        memory: new Set(source?.memory ?? [null]),
        disk: new Set(source?.disk ?? [null]),
        mayHaveLost: source !== undefined && this.#mayHaveLost(source),
        isUnseenCopy: source !== undefined,
      })
    })
  }

  async #change(name: string, part: "memory" | "disk"): Promise<void> {
    const known = this.#known.get(name)
    if (!known) return
    const value = `v${++this.#values}`
    known[part].add(value)
    const killedBefore = this.#killed.delete(known.id)
    const reply = await this.#requests.exec(name, markScript(part, value))
    this.#expect(`${part} of ${name}`, reply)
    if (killedBefore) known.mayHaveLost = true
    if (reply.status !== 200 || (reply.body as { exit_code: number }).exit_code !== 0) return
    known[part] = new Set([value])
    if (part === "disk") return
    known.mayHaveLost = false
    known.isUnseenCopy = false
  }

  async #read(name: string): Promise<void> {
    const known = this.#known.get(name)
    if (!known) return
    if (this.#killed.delete(known.id)) known.mayHaveLost = true
    const reply = await this.#requests.exec(name, readMarkersScript)
    this.#expect(`read ${name}`, reply)
    const found = readMarkers(reply)
    if (!found) return
    const { memory, disk } = found
    if (!known.disk.has(disk)) throw new Error(`${name} has ${disk} on disk instead of ${[...known.disk]}`)
    if (!known.memory.has(memory)) await this.#checkLoss(name, known, memory)
    known.memory = new Set([memory])
    known.disk = new Set([disk])
    known.mayHaveLost = false
    known.isUnseenCopy = false
  }

  #mayHaveLost(known: Known): boolean {
    return known.mayHaveLost || this.#killed.has(known.id)
  }

  async #checkLoss(name: string, known: Known, memory: string | null): Promise<void> {
    const was = [...known.memory].join(" or ")
    if (memory !== null) throw new Error(`${name} has ${memory} in memory instead of ${was}`)
    if (!this.#mayHaveLost(known)) throw new Error(`${name} lost ${was} though its machine never ended`)
    this.#count("memory lost")
    if (known.isUnseenCopy) return
    if (!(await this.#isSaid(name))) throw new Error(`${name} lost ${was} and nothing says so`)
  }

  /** Its state tells why it was booted, or its events do when it has been written to disk and woken since. */
  async #isSaid(name: string): Promise<boolean> {
    if ((await this.#requests.show(name))?.status_reason) return true
    const { body } = await this.#requests.send("GET", `/events?sandbox=${name}&limit=1000`)
    return (body as Event[]).some(({ type, meta }) => type === "thermal.wake" && meta["how"] === "disk")
  }

  async #destroy(name: string): Promise<void> {
    const reply = await this.#requests.destroy(name)
    this.#expect(`destroy ${name}`, reply)
    this.#known.delete(name)
    if (reply.status > 0 && reply.status < 500) return
    // It wins in the end: a start goes on with what was begun, and else it is asked again.
    this.#afterwards.push(async () => {
      if (await this.#requests.show(name)) {
        const again = await this.#requests.destroy(name)
        if (again.status >= 300) throw new Error(`${name} cannot be destroyed: ${JSON.stringify(again)}`)
      }
    })
  }

  #killMachine(): void {
    const machines = this.#own.machines()
    if (machines.length === 0) return
    const pid = this.#random.pick(machines)
    this.#killed.add(nameOfMachine(pid))
    process.kill(pid, "SIGKILL")
  }

  /** Now and then for longer than any deadline. */
  async #freezeMachine(going: Promise<void>): Promise<void> {
    const machines = this.#own.machines()
    if (machines.length === 0) return
    const pid = this.#random.pick(machines)
    process.kill(pid, "SIGSTOP")
    try {
      if (this.#random.chance(0.1)) await going
      else await Bun.sleep(this.#random.integer(4000))
    } finally {
      if (this.#own.machines().includes(pid)) process.kill(pid, "SIGCONT")
    }
  }

  /** While it is full nothing is written by guests: what they lose then is for them to see, and no fault of ours. */
  async #fillDisk(): Promise<void> {
    const filler = join(this.#own.dataDir, "filler")
    const extra = `full${this.#values}`
    Bun.spawnSync(["dd", "if=/dev/zero", `of=${filler}`, "bs=1M", "status=none"])
    try {
      const [name] = this.#known.keys()
      if (name !== undefined) this.#expect("stop on a full disk", await this.#requests.stop(name))
      this.#expect("create on a full disk", await this.#requests.create(extra))
    } finally {
      rmSync(filler, { force: true })
    }
    // It may have found room, or be half made.
    await this.#requests.destroy(extra)
  }

  /** A database that could not be written may still have it, half made; the daemon removes it when it next tries. */
  async #removeRefused(name: string): Promise<void> {
    const left = await this.#requests.show(name)
    if (left?.status === "running") throw new Error(`${name} was refused and runs`)
    if (left) await this.#requests.destroy(name)
  }

  /** The store, the host and the model agree. */
  async #compare(): Promise<void> {
    const listed = new Set((await this.#requests.list()).map(({ name }) => name))
    for (const name of this.#known.keys()) if (!listed.has(name)) throw new Error(`${name} is lost`)
    for (const name of listed)
      if (!this.#known.has(name)) throw new Error(`${name} is there and should not be`)
    const machines = this.#own.machines().map(nameOfMachine)
    if (new Set(machines).size !== machines.length)
      throw new Error(`two machines of one sandbox: ${machines}`)
  }

  /** A refusal is one that a caller can act on; without trouble there is none. */
  #expect(what: string, { status, body }: Reply): void {
    if (status === 0 || status < 400) return
    this.#count("refused")
    this.#report(`${what}: ${status} ${JSON.stringify(body)}`)
    if (status === 500) throw new Error(`${what}: a bug came out: ${JSON.stringify(body)}`)
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1
  }
}
