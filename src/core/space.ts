/**
 * Protects the host's disk space and users' disk quotas from running guests. It periodically measures the free space
 * and each disk's growth, asks the rule, and holds or releases sandboxes. A held sandbox is paused, and resumes
 * automatically.
 * A held sandbox stays `hot` in the store while its machine stands still; a later daemon recognises it by that.
 */

import { AppError } from "@bhatti/contract/errors"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import {
  type DiskFacts,
  decideSpace,
  hasGrace,
  hasSpace,
  isSpaceShort,
  quotaSpace,
  type SpaceDecision,
  spaceWaitMs,
} from "../rules/disk-space.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import { sleep } from "./clock.ts"
import type { Core, ForSettle } from "./core.ts"
import { DiskQuotas } from "./disk-quotas.ts"
import { noSandbox } from "./find.ts"
import { dropGuest } from "./guest-channel.ts"
import { heldCause, heldError, heldText } from "./held.ts"
import { HoldEnforcer } from "./hold-enforcer.ts"
import type { Machine, Machines } from "./host.ts"
import { machineOf, storeHot } from "./machine-of.ts"
import type { HoldReason, SpacePart } from "./parts.ts"
import { settle } from "./settle.ts"

type Parts = ForSettle & Pick<Core, "thermal" | "turns">

const refreshDeadlineMs = 10_000
/** QEMU answers in milliseconds; a slow one must not delay the check of the others. */
const answersWaitMs = 200
/** How often a pending answer is checked for a guest that has been halted. */
const haltedAgainMs = 100

type Id = SandboxRecord["id"]
/** Belongs to one machine: a new machine of the same sandbox is not held. */
type Hold = { held: HoldReason; sinceMs: number; process: ProcessIdentity }
/** Disk size at the last look, and before space became short. */
type Look = { pid: number; mib: number; calmMib: number }
type Looked = DiskFacts & { record: SandboxRecord; held: HoldReason | undefined }

export class Space implements SpacePart {
  readonly #core: Parts
  readonly #holds = new Map<Id, Hold>()
  readonly #looks = new Map<Id, Look>()
  /**
   * Disk sizes when the owner's quota first held them, while the quota is used up. `isUsed`: the owner has released
   * them.
   */
  readonly #graces = new Map<Id, { fromMib: number; isUsed: boolean }>()
  readonly #acting = new Set<Id>()
  /** Sandboxes whose machines are being asked whether they stand still. */
  readonly #asking = new Set<Id>()
  readonly #quotas: DiskQuotas
  readonly #enforcer: HoldEnforcer

  constructor(core: Parts) {
    this.#core = core
    this.#quotas = new DiskQuotas(core)
    this.#enforcer = new HoldEnforcer(core)
  }

  heldOf(record: SandboxRecord): HoldReason | undefined {
    return this.#holdOf(record)?.held
  }

  #holdOf(record: SandboxRecord): Hold | undefined {
    const hold = this.#holds.get(record.id)
    return hold && Bun.deepEquals(hold.process, machineOf(record)?.process) ? hold : undefined
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let waitMs = spaceWaitMs({ freeMib: 0, reserveMib: 1 })
      try {
        waitMs = await this.tick()
      } catch (error) {
        this.#core.log.error({ error }, "the check of the disk space failed")
      }
      await sleep(this.#core.clock, waitMs, signal)
    }
  }

  async tick(): Promise<number> {
    const core = this.#core
    const amount = await this.#amount()
    const isShort = isSpaceShort(amount)
    const all = await core.store.sandboxes.listOnHost()
    await this.#quotas.measure(all)
    this.#endGraces(all)
    // A full disk may have rejected the state of a held sandbox.
    const hot = all.filter((record) => record.state.kind === "hot" || this.heldOf(record) !== undefined)
    this.#forgetOthers(hot)
    await this.#askWhetherHalted(hot, isShort)
    const looks = await Promise.all(hot.map((record) => this.#look(record, isShort)))
    const concerned = (some: Looked[], held: HoldReason) =>
      some.filter((one) => one.held === undefined || one.held === held)
    this.#follow(decideSpace({ ...amount, disks: concerned(looks, "host_disk") }), looks, "host_disk")
    for (const [userId, own] of Map.groupBy(looks, ({ record }) => record.userId)) {
      // Sandboxes held by a quota resume when it is removed.
      const space = quotaSpace(this.#quotas.leftMib(userId) ?? Number.MAX_SAFE_INTEGER)
      this.#follow(decideSpace({ ...space, disks: concerned(own, "disk_quota") }), own, "disk_quota")
    }
    return spaceWaitMs(amount)
  }

  #follow({ hold, release }: SpaceDecision, looks: Looked[], held: HoldReason): void {
    for (const { record } of looks) {
      if (hold.includes(record.id)) this.#act(record, (now) => this.#hold(now, held))
      if (release.includes(record.id)) this.#act(record, (now) => this.#release(now))
    }
  }

  async check(record: SandboxRecord): Promise<void> {
    const held = this.heldOf(record)
    if (held === undefined) return
    if (held !== "host_disk" || !(await this.hasRoom())) throw heldError(record, held)
    await this.#core.turns.take(record.id, async () => {
      const now = await this.#core.store.sandboxes.get(record.id)
      if (now) await this.checkInTurn(now)
    })
  }

  async checkInTurn(seen: SandboxRecord): Promise<SandboxRecord> {
    const hold = this.#holdOf(seen)
    if (!hold) return seen
    if (hold.held === "host_disk" && (await this.hasRoom())) await this.#release(seen)
    const record = await this.#core.store.sandboxes.get(seen.id)
    if (!record) throw noSandbox(seen.name)
    if (this.#holdOf(record)) throw heldError(record, hold.held)
    return record
  }

  /**
   * The owner releases it despite the used-up quota, to free space inside: it may run until it has grown a little more.
   */
  async insist(record: SandboxRecord): Promise<void> {
    if (this.heldOf(record) !== "disk_quota") return
    const mib = await this.#core.host.disks.measureMib(record.id, "overlay")
    const { fromMib } = this.#graces.get(record.id) ?? { fromMib: mib }
    if (!hasGrace(mib - fromMib)) return
    this.#graces.set(record.id, { fromMib, isUsed: true })
    const pid = machineOf(record)?.process.pid ?? 0
    this.#looks.set(record.id, { pid, mib, calmMib: mib })
    await this.#inTurn(record, (now) => this.#release(now))
  }

  /** A manual stop does not grant another grace. */
  #endGraces(all: SandboxRecord[]): void {
    const over = new Set(all.filter((record) => this.#isOverQuota(record)).map(({ id }) => id))
    for (const id of this.#graces.keys()) if (!over.has(id)) this.#graces.delete(id)
  }

  #isOverQuota({ userId }: SandboxRecord): boolean {
    const leftMib = this.#quotas.leftMib(userId)
    return leftMib !== undefined && isSpaceShort(quotaSpace(leftMib))
  }

  /** Returns whether the host's disk has less room than is kept free. */
  async isShort(): Promise<boolean> {
    return isSpaceShort(await this.#amount())
  }

  /** Returns whether the host has room for a held sandbox to resume. */
  async hasRoom(): Promise<boolean> {
    return hasSpace(await this.#amount())
  }

  async keepHalted(record: SandboxRecord, machine: Machine): Promise<void> {
    const hasRoom = await this.hasRoom()
    if (hasRoom && !this.#isOverQuota(record)) return
    const halt = await this.#haltOf(record, machine)
    if (halt === "none") return
    const stored = await this.#core.store.sandboxes.get(record.id)
    // A machine in `waking` may still be loading its memory, which is fine until its processors have run.
    if (halt === "paused" && stored?.state.kind === "waking") return
    const held = hasRoom ? "disk_quota" : "host_disk"
    await this.#keep(record, machine, held)
    throw heldError(record, held)
  }

  async haltedFor(record: SandboxRecord, machine: Machine): Promise<AppError | undefined> {
    if ((await this.#haltOf(record, machine)) !== "disk_full") return undefined
    await this.#keep(record, machine, "host_disk")
    return heldError(record, "host_disk")
  }

  async unlessHalted<T>(record: SandboxRecord, machine: Machine, answer: Promise<T>): Promise<T> {
    const { clock } = this.#core
    const halted = Promise.withResolvers<undefined>()
    let isOver = false
    const look = async () => {
      if ((await this.#haltOf(record, machine)) === "disk_full") halted.resolve(undefined)
      else if (!isOver) alarm = lookSoon()
    }
    const lookSoon = () => clock.after(haltedAgainMs, () => void look().catch(halted.reject))
    let alarm = lookSoon()
    try {
      const given = await Promise.race([answer.then((value) => ({ value })), halted.promise])
      if (given) return given.value
    } finally {
      isOver = true
      alarm.cancel()
    }
    await this.#keep(record, machine, "host_disk")
    throw heldError(record, "host_disk")
  }

  /** Records it as running, whatever state it was in, so that the next look finds it. */
  async #keep(record: SandboxRecord, machine: Machine, held: HoldReason): Promise<void> {
    const core = this.#core
    this.#note(record, machine, held)
    try {
      // Its disk changes when it resumes; an older saved memory must not be found then.
      await core.host.machines.removeSnapshot(record.id)
      await storeHot(core, record.id, machine)
    } catch (error) {
      core.log.warn({ sandbox: record.id, error }, "the state of a held sandbox could not be written")
    }
  }

  async #amount(): Promise<{ freeMib: number; reserveMib: number }> {
    return {
      freeMib: await this.#core.host.disks.freeMib(),
      reserveMib: this.#core.settings.diskReserveMib,
    }
  }

  #forgetOthers(hot: SandboxRecord[]): void {
    const known = new Map(hot.map((record) => [record.id, record]))
    for (const id of this.#holds.keys()) {
      const record = known.get(id)
      if (!record || !this.#holdOf(record)) this.#holds.delete(id)
    }
    for (const id of this.#looks.keys()) if (!known.has(id)) this.#looks.delete(id)
  }

  /** Asks all at once, with one pending question each. A late answer counts at a later look. */
  async #askWhetherHalted(hot: SandboxRecord[], isShort: boolean): Promise<void> {
    const { clock, log } = this.#core
    const ask = async (record: SandboxRecord) => {
      if (this.#asking.has(record.id) || this.heldOf(record) !== undefined) return
      this.#asking.add(record.id)
      try {
        await this.#findHalted(record, isShort)
      } catch (error) {
        log.error({ sandbox: record.id, error }, "could not ask whether a machine is stopped")
      } finally {
        this.#asking.delete(record.id)
      }
    }
    const late = Promise.withResolvers<void>()
    const alarm = clock.after(answersWaitMs, () => late.resolve())
    await Promise.race([Promise.all(hot.map(ask)), late.promise])
    alarm.cancel()
  }

  async #look(record: SandboxRecord, isHostShort: boolean): Promise<Looked> {
    const machine = machineOf(record)
    const pid = machine?.process.pid ?? 0
    const mib = await this.#core.host.disks.measureMib(record.id, "overlay")
    const isShort = isHostShort || this.#isOverQuota(record)
    const before = this.#looks.get(record.id)
    const last = before?.pid === pid ? before : { pid, mib, calmMib: mib }
    this.#looks.set(record.id, { pid, mib, calmMib: isShort ? last.calmMib : mib })
    const hold = this.#holdOf(record)
    if (hold && this.#enforcer.hasGrown(hold, mib)) this.#act(record, (now) => this.#enforce(now, hold))
    return {
      record,
      held: hold?.held,
      id: record.id,
      grewMib: mib - last.mib,
      grewSinceShortMib: mib - last.calmMib,
      heldSinceMs: hold?.sinceMs ?? null,
      isLetGoOn: !isHostShort && (this.#graces.get(record.id)?.isUsed ?? false),
    }
  }

  /** Handles a machine that QEMU or an earlier daemon has stopped. */
  async #findHalted(seen: SandboxRecord, isShort: boolean): Promise<void> {
    const { turns, guests } = this.#core
    const before = machineOf(seen)
    const first = before ? await this.#haltOf(seen, before) : "none"
    // The holder of the turn may have paused it briefly.
    if (first === "none" || (first === "paused" && turns.isTaken(seen.id))) return
    await this.#inTurn(seen, async (record) => {
      const machine = machineOf(record)
      if (!machine || this.heldOf(record) !== undefined) return
      const halt = await this.#haltOf(record, machine)
      const isOver = this.#isOverQuota(record)
      const isLeft = halt === "paused" && (isShort || isOver || !guests.has(record.id))
      if (halt !== "disk_full" && !isLeft) return
      this.#note(record, machine, halt === "paused" && isOver ? "disk_quota" : "host_disk")
    })
  }

  /** A machine that does not answer, or has ended, is handled elsewhere. */
  async #haltOf(record: SandboxRecord, machine: Machine): ReturnType<Machines["haltOf"]> {
    const { machines } = this.#core.host
    if (!machines.isRunning(machine)) return "none"
    try {
      return await machines.haltOf(machine)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      this.#core.log.warn({ sandbox: record.id, error }, "could not ask whether a machine runs")
      return "none"
    }
  }

  #note(record: SandboxRecord, { process }: Machine, held: HoldReason): void {
    if (Bun.deepEquals(this.#holds.get(record.id)?.process, process)) return
    this.#holds.set(record.id, { held, sinceMs: this.#core.clock.nowMs(), process })
    const look = this.#looks.get(record.id)
    if (held === "disk_quota" && look && !this.#graces.has(record.id))
      this.#graces.set(record.id, { fromMib: look.mib, isUsed: false })
    this.#record(record, "sandbox.held", { cause: heldCause(held), reason: heldText(held) })
  }

  #record(
    record: SandboxRecord,
    type: "sandbox.held" | "sandbox.released",
    why: { cause?: string; reason: string },
  ): void {
    this.#core.events.record({
      type,
      userId: record.userId,
      sandbox: record,
      meta: { by: "daemon", ...why },
    })
    this.#core.log.warn({ sandbox: record.id, ...why }, type)
  }

  #act(record: SandboxRecord, work: (now: SandboxRecord) => Promise<void>): void {
    if (this.#acting.has(record.id)) return
    this.#acting.add(record.id)
    this.#inTurn(record, work)
      .catch((error: unknown) =>
        this.#core.log.error({ sandbox: record.id, error }, "a sandbox could not be held or released"),
      )
      .finally(() => this.#acting.delete(record.id))
  }

  async #inTurn(seen: SandboxRecord, work: (now: SandboxRecord) => Promise<void>): Promise<void> {
    await this.#core.turns.take(seen.id, async () => {
      const now = await this.#core.store.sandboxes.get(seen.id)
      if (now && (now.state.kind === "hot" || this.heldOf(now) !== undefined)) await work(now)
    })
  }

  async #hold(record: SandboxRecord, held: HoldReason): Promise<void> {
    const machine = machineOf(record)
    if (!machine || this.heldOf(record) !== undefined) return
    await this.#enforcer.pause(record, machine)
    this.#note(record, machine, held)
  }

  async #enforce(record: SandboxRecord, hold: Hold): Promise<void> {
    if (this.#holdOf(record) === hold) await this.#enforcer.enforce(record, hold)
  }

  /** The machine runs when this returns, unless its next write finds no space again. */
  async #release(record: SandboxRecord): Promise<void> {
    const core = this.#core
    const machine = machineOf(record)
    const hold = this.#holdOf(record)
    if (!machine || !hold) return
    this.#enforcer.forget(hold)
    const guest = record.state.kind === "hot" ? core.guests.get(record.id) : undefined
    if (guest) {
      try {
        await Promise.all([
          core.host.machines.resume(machine),
          guest.ask({ op: "refresh" }, { deadlineMs: refreshDeadlineMs }),
        ])
      } catch (error) {
        // The machine has run out of space again, and stays held.
        if ((await this.#haltOf(record, machine)) === "disk_full") return
        dropGuest(core, record.id, { cause: "channel_lost" })
        throw error
      }
    } else if (!(await settle(core, record.id))) return
    // This query while it runs clears QEMU's memory of the lack of space.
    await this.#haltOf(record, machine)
    this.#holds.delete(record.id)
    // The time it was held does not count as idle.
    core.thermal.forget(record.id)
    this.#record(record, "sandbox.released", { reason: "there is room" })
  }
}
