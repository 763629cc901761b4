/**
 * The pool: sandboxes prepared without an owner (restored, exercised and paused), so that a create only sets an
 * identity. They have never held user data. They are made in the background while no create runs, never block one, and
 * are discarded when the daemon starts. `rules/pool.ts` decides how many there are of each size.
 */

import {
  type Demand,
  expectedSoon,
  type PoolSettings,
  pooledMib,
  poolTargets,
  wantedOnceMore,
} from "../rules/pool.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Alarm } from "./clock.ts"
import type { Core, OnHost } from "./core.ts"
import { removeById } from "./destroy.ts"
import type { Guest, Template, TemplateSpec } from "./host.ts"
import { imageDefaults } from "./identity.ts"
import { placeOf } from "./machine-of.ts"
import type { PooledSandbox, PoolPart } from "./parts.ts"
import { exercise } from "./run-in-guest.ts"
import { readyDeadlineMs } from "./start.ts"

type Parts = Pick<Core, "clock" | "log" | "memory" | "store" | "zygotes"> &
  OnHost<"disks" | "machines" | "network">

/** Creates come in bursts; filling waits until the burst is over. */
const quietMs = 300
const retryMs = 10_000
/** Without creates the demand decays gradually. */
const lookAgainMs = 60_000

type Shelf = { spec: TemplateSpec; template: Template; ready: PooledSandbox[]; demand: Demand }

/** The placeholder identity, which the owner's identity replaces completely. */
const nobody = { hostname: "sandbox", machineId: "0".repeat(32), env: {}, growDisk: false }
/**
 * Commands that most users run first. Twice, since QEMU translates again when code runs from another place: 17 ms of
 * processor time for the owner's first command instead of 29. Larger programs are left out: the translations of one
 * `bash -l` would take 10 MB in every sandbox.
 */
const exercises = [["true"], ["echo"], ["sh", "-c", ":"], ["true"], ["echo", "again"], ["true"]]

export class Pool implements PoolPart {
  readonly #core: Parts
  readonly #settings: PoolSettings
  readonly #shelves = new Map<string, Shelf>()
  #creating = 0
  #filling: { shelf: Shelf; done: Promise<void> } | undefined
  readonly #discarding = new Set<Promise<void>>()
  #isStopped = false
  #timer: Alarm | undefined
  #timerEndsAtMs = 0

  constructor(core: Parts, settings: PoolSettings) {
    this.#core = core
    this.#settings = settings
  }

  take(template: Template): PooledSandbox | undefined {
    for (;;) {
      const pooled = this.#shelves.get(template.id)?.ready.shift()
      if (!pooled || this.#core.host.machines.isRunning(pooled.machine)) return pooled
      void this.#discard(pooled.id, pooled.guest)
    }
  }

  get templateIds(): string[] {
    return [...this.#shelves.keys()]
  }

  get readyCount(): number {
    return [...this.#shelves.values()].reduce((sum, { ready }) => sum + ready.length, 0)
  }

  giveBack(pooled: PooledSandbox): void {
    this.#shelves.get(pooled.template.id)?.ready.unshift(pooled)
  }

  beginCreate(): Disposable {
    this.#creating++
    return {
      [Symbol.dispose]: () => {
        this.#creating--
        this.#tendSoon(quietMs)
      },
    }
  }

  wants(spec: TemplateSpec, template: Template): void {
    if (this.#settings.sizeMax === 0 || this.#isStopped) return
    const shelf = this.#shelves.get(template.id)
    const demand = wantedOnceMore(shelf?.demand, this.#core.clock.nowMs())
    if (shelf) shelf.demand = demand
    else this.#shelves.set(template.id, { spec, template, ready: [], demand })
    this.#tendSoon(quietMs)
  }

  expects(spec: TemplateSpec, template: Template): void {
    if (this.#settings.sizeMax === 0 || this.#isStopped || this.#shelves.has(template.id)) return
    const demand = expectedSoon(this.#core.clock.nowMs())
    this.#shelves.set(template.id, { spec, template, ready: [], demand })
    this.#tendSoon(quietMs)
  }

  async forget(templateIds: ReadonlySet<string>): Promise<void> {
    const gone = [...this.#shelves.values()].filter(({ template }) => templateIds.has(template.id))
    for (const { template } of gone) this.#shelves.delete(template.id)
    for (const { id, guest } of gone.flatMap(({ ready }) => ready)) void this.#discard(id, guest)
    // Each row keeps its template, also while its sandbox is being made or removed.
    if (this.#filling && gone.includes(this.#filling.shelf)) await this.#filling.done
    await Promise.all(this.#discarding)
  }

  shed(): void {
    for (const { ready } of this.#shelves.values())
      for (const { id, guest } of ready.splice(0)) void this.#discard(id, guest)
    this.#tendSoon(retryMs)
  }

  async empty(): Promise<void> {
    this.#isStopped = true
    this.#timer?.cancel()
    await this.#filling?.done
    const all = [...this.#shelves.values()].flatMap(({ ready }) => ready)
    this.#shelves.clear()
    await Promise.all(all.map(({ id, guest }) => this.#discard(id, guest)))
  }

  #tendSoon(ms: number): void {
    if (this.#isStopped || this.#filling) return
    const endsAtMs = this.#core.clock.nowMs() + ms
    if (this.#timer && this.#timerEndsAtMs <= endsAtMs) return
    this.#timer?.cancel()
    this.#timerEndsAtMs = endsAtMs
    this.#timer = this.#core.clock.after(ms, () => {
      this.#timer = undefined
      this.#tend()
    })
  }

  /** Removes surplus sandboxes, or makes a missing one. The end of a create calls it again. */
  #tend(): void {
    if (this.#creating > 0) return
    const shelves = [...this.#shelves.values()]
    // A fork takes no longer than the start of a pooled machine.
    const cloned = shelves.filter(({ template }) => !this.#core.zygotes.isExpected(template.id))
    const counts = poolTargets(
      cloned.map(({ demand }) => demand),
      this.#settings,
      this.#core.clock.nowMs(),
    )
    const targets = shelves.map((shelf) => counts[cloned.indexOf(shelf)] ?? 0)
    for (const [index, { ready }] of shelves.entries()) {
      for (const { id, guest } of ready.splice(targets[index] ?? 0)) void this.#discard(id, guest)
    }
    const short = shelves.find(({ ready }, index) => ready.length < (targets[index] ?? 0))
    if (!short) return this.#tendSoon(lookAgainMs)
    const done = this.#fill(short).then((nextMs) => {
      this.#filling = undefined
      this.#tendSoon(nextMs)
    })
    this.#filling = { shelf: short, done }
  }

  /** Returns the wait before the next one. */
  async #fill(shelf: Shelf): Promise<number> {
    try {
      const pooled = await this.#make(shelf)
      const isForgotten = this.#shelves.get(shelf.template.id) !== shelf
      if (this.#isStopped || isForgotten) await this.#discard(pooled.id, pooled.guest)
      else shelf.ready.push(pooled)
      return 0
    } catch (error) {
      this.#core.log.warn({ error }, "could not fill the pool")
      return retryMs
    }
  }

  async #make({ spec, template }: Shelf): Promise<PooledSandbox> {
    const core = this.#core
    using _memory = core.memory.promiseSpare(pooledMib)
    const { disks, machines } = core.host
    await using undo = new AsyncDisposableStack()

    const { diskMib } = spec.image
    const { id, slot } = await core.store.sandboxes.addPooled(machines)
    // Runs in this order and stops at a failed step: a living machine keeps its disk and its row.
    undo.defer(() => removeById(core, id))
    await core.store.sandboxes.setTemplate(id, template.id)

    await disks.createSandbox({ id, template })
    const { machine, guest } = await machines.start(placeOf({ id, slot, diskMib }, template), {
      kind: "template",
    })
    undo.defer(() => guest.close())
    machines.setUrgency(machine, "background")
    await core.host.network?.linkUp({ id, slot })
    await guest.waitReady({ deadlineMs: readyDeadlineMs })
    // Includes the address, since the network is half of a personalisation; twice for the same reason as `exercises`.
    const network = core.host.network?.identityOf({ id, slot }) ?? null
    const identity = { ...nobody, ...imageDefaults(spec.image.config), network }
    for (let times = 0; times < 2; times++)
      await guest.ask({ op: "personalise", identity }, { deadlineMs: readyDeadlineMs })
    for (const argv of exercises) await exercise(guest, argv)
    await machines.pause(machine)
    machines.setUrgency(machine, "normal")
    undo.move()
    return { id, template, machine, guest }
  }

  #discard(id: SandboxRecord["id"], guest: Guest): Promise<void> {
    const discarding = this.#remove(id, guest).finally(() => this.#discarding.delete(discarding))
    this.#discarding.add(discarding)
    return discarding
  }

  async #remove(id: SandboxRecord["id"], guest: Guest): Promise<void> {
    guest.close()
    try {
      await removeById(this.#core, id)
    } catch (error) {
      this.#core.log.warn({ sandbox: id, error }, "could not remove a pooled sandbox")
    }
  }
}
