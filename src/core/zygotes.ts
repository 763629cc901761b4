/**
 * Zygotes: per template a heated machine that stands still, which others are forked from. They are made in the
 * background, tried before they serve, replaced when they are worn out, and given up when memory is short. They hold no
 * user's data and run no user's code, and end with the daemon; the machines forked from them live on.
 * `rules/zygotes.ts` decides which templates have one.
 */

import { AppError } from "@bhatti/contract/errors"
import type { GuestIdentity } from "@bhatti/contract/guest"
import {
  hasServed,
  isBroken,
  isOverdue,
  isWornOut,
  isWorthIt,
  restAfterFailures,
  type ZygoteFacts,
  zygoteMib,
  zygoteTargets,
} from "../rules/zygotes.ts"
import type { Alarm } from "./clock.ts"
import type { Core, OnHost } from "./core.ts"
import { heat } from "./heat.ts"
import type { Guest, Zygotes as HostZygotes, Template, TemplateSpec, Zygote } from "./host.ts"
import type { ForkStatus, ZygotePart } from "./parts.ts"
import { runInGuest } from "./run-in-guest.ts"
import { readyDeadlineMs } from "./start.ts"
import { unlessAborted } from "./unless-aborted.ts"

type Parts = Pick<Core, "clock" | "events" | "log" | "memory" | "metrics"> & OnHost<"network" | "zygotes">

const soonMs = 300
/** How often processes that ended and zygotes that are worn out are noticed without a create. */
const lookAgainMs = 30_000
const reasonsMax = 100
/** So many failed wakes in a row, and a zygote is asked for no more. */
const wakeFailuresMax = 3
/** A replaced zygote ends when every fork from it has, which takes ten seconds at most. */
const lingerMs = 15_000

/** It stands for an identity, which each machine gets for itself. */
const nobody: GuestIdentity = {
  hostname: "sandbox",
  machineId: "0".repeat(32),
  env: {},
  network: null,
  growDisk: false,
}

/** Stands for the network of an identity, in shape as a sandbox's; the addresses are those of documentation. */
const network = {
  ...{ mac: "02:00:00:00:00:01", address: "192.0.2.2", prefix: 32, gateway: "192.0.2.1" },
  ...{ dns: ["192.0.2.1"], mtu: 1500 },
}

/**
 * With `inAdvance` machines are made before anybody asks for them; with `wakes` stopped sandboxes are woken by a fork.
 */
export type ZygoteSettings = { inAdvance: boolean; wakes: boolean; whyCloned?: string | undefined }

/** `wakeFailures` are in a row. */
type Live = ZygoteFacts & { zygote: Zygote; wakeFailures: number }
type Shelf = {
  spec: TemplateSpec
  template: Template
  lastWantedMs: number
  uses: number
  live: Live | undefined
  failures: number
  restUntilMs: number
}

export class Zygotes implements ZygotePart {
  readonly #core: Parts
  readonly #settings: ZygoteSettings
  readonly #shelves = new Map<string, Shelf>()
  /** Zygotes that others have replaced, with the alarm that ends each. */
  readonly #replaced = new Map<Zygote, Alarm>()
  /** Reasons that the log has already. */
  readonly #told = new Set<string>()
  readonly #stop = new AbortController()
  #making: Promise<void> | undefined
  #timer: Alarm | undefined
  #timerEndsAtMs = 0
  #status: ForkStatus

  constructor(core: Parts, settings: ZygoteSettings) {
    this.#core = core
    this.#settings = settings
    this.#status = core.host.zygotes
      ? { by: "clone", reason: "no heated machine is ready yet" }
      : { by: "clone", reason: settings.whyCloned ?? "no machine of this host is forked" }
  }

  get status(): ForkStatus {
    return this.#status
  }

  get readyCount(): number {
    return this.#all.filter(({ live }) => live).length
  }

  get templateIds(): string[] {
    return [...this.#shelves.keys()]
  }

  get #all(): Shelf[] {
    return [...this.#shelves.values()]
  }

  wants(spec: TemplateSpec, template: Template): void {
    if (!this.#core.host.zygotes || this.#stop.signal.aborted || !isOurs(spec)) return
    const shelf = this.#shelves.get(template.id) ?? {
      ...{ spec, template, lastWantedMs: 0, uses: 0 },
      ...{ live: undefined, failures: 0, restUntilMs: 0 },
    }
    this.#shelves.set(template.id, shelf)
    shelf.lastWantedMs = this.#core.clock.nowMs()
    shelf.uses++
    if (!shelf.live) this.#tendSoon(soonMs)
  }

  isExpected(templateId: string): boolean {
    const shelf = this.#shelves.get(templateId)
    if (!shelf || shelf.live) return shelf !== undefined
    return shelf.failures === 0 && this.#core.clock.nowMs() >= shelf.restUntilMs
  }

  of(templateId: string): Zygote | undefined {
    const shelf = this.#shelves.get(templateId)
    if (shelf) this.#giveUpUnfit(shelf)
    return shelf?.live?.zygote
  }

  onFork(zygote: Zygote, result: "done" | { error: unknown }): void {
    this.#core.metrics.forked(result === "done" ? "done" : "failed")
    const shelf = this.#all.find(({ live }) => live?.zygote === zygote)
    if (result !== "done")
      this.#tell(zygote.template, result.error, "a machine was cloned, since its fork failed")
    if (!shelf?.live) return
    if (result === "done") {
      shelf.live.children++
      shelf.live.failuresInARow = 0
      if (isWornOut(shelf.live, this.#core.clock.nowMs())) this.#tendSoon(soonMs)
    } else {
      shelf.live.failuresInARow++
      if (isBroken(shelf.live) || !this.#isAlive(shelf.live)) this.#give(shelf, reasonOf(result.error))
    }
  }

  ofWake(templateId: string): Zygote | undefined {
    if (!this.#settings.wakes) return undefined
    const zygote = this.of(templateId)
    const live = this.#shelves.get(templateId)?.live
    return live && live.wakeFailures < wakeFailuresMax ? zygote : undefined
  }

  onWake(zygote: Zygote, result: "done" | { error: unknown }): void {
    const live = this.#all.find((shelf) => shelf.live?.zygote === zygote)?.live
    if (result !== "done")
      this.#tell(zygote.template, result.error, "a sandbox was woken by a clone, since the fork failed")
    if (live) live.wakeFailures = result === "done" ? 0 : live.wakeFailures + 1
  }

  shed(): void {
    void this.#endReplaced()
    for (const shelf of this.#all) {
      if (shelf.live) this.#end(shelf.live)
      shelf.live = undefined
      shelf.restUntilMs = this.#core.clock.nowMs() + lookAgainMs
    }
    if (this.#shelves.size > 0) this.#tendSoon(lookAgainMs)
  }

  async empty(): Promise<void> {
    this.#stop.abort(new AppError("unavailable", "the daemon stops"))
    this.#timer?.cancel()
    await this.#making
    const all = this.#all.flatMap(({ live }) => live ?? [])
    this.#shelves.clear()
    await Promise.all([this.#endReplaced(), ...all.map(({ zygote }) => this.#endZygote(zygote))])
  }

  #isAlive({ zygote }: Live): boolean {
    return this.#core.host.zygotes?.isAlive(zygote) ?? false
  }

  #tendSoon(ms: number): void {
    if (this.#stop.signal.aborted || this.#making) return
    const endsAtMs = this.#core.clock.nowMs() + ms
    if (this.#timer && this.#timerEndsAtMs <= endsAtMs) return
    this.#timer?.cancel()
    this.#timerEndsAtMs = endsAtMs
    this.#timer = this.#core.clock.after(ms, () => {
      this.#timer = undefined
      this.#tend()
    })
  }

  /** Ends zygotes that are not wanted any more, or makes a missing one. */
  #tend(): void {
    const nowMs = this.#core.clock.nowMs()
    const all = this.#all
    const targets = zygoteTargets(
      all.map(({ lastWantedMs }) => lastWantedMs),
      nowMs,
    )
    for (const [index, shelf] of all.entries()) {
      if (!targets[index]) {
        if (shelf.live) this.#end(shelf.live)
        this.#shelves.delete(shelf.template.id)
      } else this.#giveUpUnfit(shelf)
    }
    const due = this.#all.find(
      ({ live, restUntilMs, uses }) =>
        isWorthIt(uses, this.#settings) && nowMs >= restUntilMs && (!live || isWornOut(live, nowMs)),
    )
    if (!due) {
      const rests = this.#all.flatMap(({ live, restUntilMs }) => (live ? [] : restUntilMs - nowMs))
      if (this.#shelves.size > 0) this.#tendSoon(Math.min(lookAgainMs, ...rests))
      return
    }
    this.#making = this.#replace(due).then(() => {
      this.#making = undefined
      this.#tendSoon(soonMs)
    })
  }

  /** The former one serves until the new one is ready. */
  async #replace(shelf: Shelf): Promise<void> {
    const { clock, events, log } = this.#core
    const startedAt = clock.nowMs()
    try {
      const zygote = await this.#make(shelf)
      const former = shelf.live
      if (this.#shelves.get(shelf.template.id) !== shelf) return await this.#endZygote(zygote)
      shelf.live = { zygote, children: 0, madeAtMs: clock.nowMs(), failuresInARow: 0, wakeFailures: 0 }
      if (former) this.#endLater(former)
      const ms = Math.round(clock.nowMs() - startedAt)
      events.record({ type: "zygote.made", meta: { by: "daemon", template: shelf.template.id, ms } })
      log.info({ template: shelf.template.id, ms }, "machines of a template are forked from now on")
      await this.#setStatus(
        "fork",
        `a machine was forked from ${this.#build} and ran a command; there is no pool`,
      )
    } catch (error) {
      if (this.#stop.signal.aborted) return
      shelf.failures++
      shelf.restUntilMs = clock.nowMs() + restAfterFailures(shelf.failures)
      this.#tell(shelf.template, error, "machines of a template are cloned: no zygote can be made")
      if (this.readyCount === 0 && !isShortOfMemory(error)) await this.#setStatus("clone", reasonOf(error))
    }
  }

  get #build(): string {
    return this.#core.host.zygotes?.build ?? "QEMU"
  }

  async #make(shelf: Shelf): Promise<Zygote> {
    const { zygotes } = this.#core.host
    if (!zygotes) throw new Error("no zygotes on this host")
    using _memory = this.#core.memory.promiseSpare(zygoteMib)
    await using undo = new AsyncDisposableStack()
    const { zygote, guest } = await zygotes.start(shelf.template)
    const prepared = this.#prepare(zygotes, zygote, guest)
    // A trial that is left has a machine, which it ends.
    undo.defer(async () => {
      await Promise.allSettled([prepared])
    })
    undo.defer(() => this.#endZygote(zygote))
    undo.defer(() => guest.close())
    await unlessAborted(prepared, this.#stop.signal)
    undo.move()
    return zygote
  }

  async #prepare(zygotes: HostZygotes, zygote: Zygote, guest: Guest): Promise<void> {
    await heat(guest, { nobody, somebody: this.#core.host.network ? { ...nobody, network } : nobody })
    guest.close()
    await zygotes.freeze(zygote)
    await zygotes.try(zygote, (child) => unlessAborted(prove(child), this.#stop.signal))
  }

  #giveUpUnfit(shelf: Shelf): void {
    if (!shelf.live) return
    if (!this.#isAlive(shelf.live)) this.#give(shelf, "its process ended")
    else if (isOverdue(shelf.live, this.#core.clock.nowMs()))
      this.#give(shelf, "it was worn out, and none could take its place")
  }

  /** The next one is made after a rest, which grows with each that passes its trial and then fails. */
  #give(shelf: Shelf, reason: string): void {
    const nowMs = this.#core.clock.nowMs()
    if (shelf.live) {
      this.#end(shelf.live)
      if (hasServed(shelf.live, nowMs)) shelf.failures = 0
    }
    shelf.live = undefined
    shelf.failures++
    const restMs = restAfterFailures(shelf.failures)
    shelf.restUntilMs = nowMs + restMs
    const { id } = shelf.template
    this.#core.events.record({ type: "zygote.lost", meta: { by: "daemon", template: id, reason } })
    this.#core.log.warn(
      { template: id, reason, restMs },
      "a zygote was given up; machines are cloned until there is another",
    )
    this.#tendSoon(restMs)
  }

  #end({ zygote }: Live): void {
    void this.#endZygote(zygote)
  }

  /** Forks from it may be under way. */
  #endLater({ zygote }: Live): void {
    const alarm = this.#core.clock.after(lingerMs, () => {
      this.#replaced.delete(zygote)
      void this.#endZygote(zygote)
    })
    this.#replaced.set(zygote, alarm)
  }

  async #endReplaced(): Promise<void> {
    const all = [...this.#replaced]
    this.#replaced.clear()
    for (const [, alarm] of all) alarm.cancel()
    await Promise.all(all.map(([zygote]) => this.#endZygote(zygote)))
  }

  async #endZygote(zygote: Zygote): Promise<void> {
    try {
      await this.#core.host.zygotes?.end(zygote)
    } catch (error) {
      this.#core.log.warn({ template: zygote.template.id, error }, "a zygote does not end")
    }
  }

  /** Once for each reason. */
  #tell({ id }: Template, error: unknown, what: string): void {
    const reason = reasonOf(error)
    if (this.#told.has(reason) || this.#told.size >= reasonsMax) return
    this.#told.add(reason)
    this.#core.log.warn({ template: id, error }, what)
    this.#core.events.record({ type: "zygote.failed", meta: { by: "daemon", template: id, reason } })
  }

  async #setStatus(by: ForkStatus["by"], reason: string): Promise<void> {
    this.#status = { by, reason }
    const works = by === "fork"
    await this.#core.host.zygotes
      ?.keepTrial({ works, reason: works ? null : reason })
      .catch((error: unknown) =>
        this.#core.log.warn({ error }, "the result of a trial fork was not written down"),
      )
  }
}

/** Throws unless a forked machine works. */
async function prove(guest: Guest): Promise<void> {
  await guest.waitReady({ deadlineMs: readyDeadlineMs })
  await guest.ask({ op: "personalise", identity: nobody }, { deadlineMs: readyDeadlineMs })
  const { exitCode } = await runInGuest(guest, { argv: ["true"], timeoutMs: readyDeadlineMs })
  if (exitCode !== 0) throw new AppError("unavailable", `in a forked machine "true" exits with ${exitCode}`)
}

/**
 * A zygote runs code of the operator's images only, with the start command that the image itself has: no user's start
 * command, and no image of others.
 */
function isOurs({ image, programs }: TemplateSpec): boolean {
  return (programs?.owner ?? null) === null && image.config === undefined
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function isShortOfMemory(error: unknown): boolean {
  return error instanceof AppError && error.reason === "host_memory"
}
