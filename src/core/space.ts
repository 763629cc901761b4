/**
 * The host's disk space and users' disk quotas, kept against guests that run. At its own pace this looks at what is left and at
 * what each disk has grown by, asks the rule, and holds or releases sandboxes. A held one is paused where it stands, and goes on
 * by itself.
 *
 * A held sandbox stays `hot` in the store, and its machine stands still: that is how a later daemon knows it.
 */

import { AppError } from "../contract/errors.ts"
import type { Held } from "../contract/sandbox.ts"
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
import { dropGuest, repair } from "./attach.ts"
import type { Core } from "./core.ts"
import { DiskQuotas } from "./disk-quotas.ts"
import type { Machine, Machines } from "./host.ts"
import { machineOf } from "./machine-of.ts"
import { pause } from "./pause.ts"

const refreshDeadlineMs = 10_000
const retryAfterSec = 10

type Id = SandboxRecord["id"]
type Hold = { held: Held; sinceMs: number }
/** Size of a disk at the last look, and before space became short. */
type Look = { pid: number; mib: number; calmMib: number }
type Looked = DiskFacts & { record: SandboxRecord; held: Held | undefined }

export class Space {
  readonly #core: Core
  readonly #holds = new Map<Id, Hold>()
  readonly #looks = new Map<Id, Look>()
  readonly #acting = new Set<Id>()
  readonly #quotas: DiskQuotas

  constructor(core: Core) {
    this.#core = core
    this.#quotas = new DiskQuotas(core)
  }

  /** Why it is held; undefined: it is not. */
  heldOf(id: Id): Held | undefined {
    return this.#holds.get(id)?.held
  }

  /** Runs until the signal says stop. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let waitMs = spaceWaitMs({ freeMib: 0, reserveMib: 1 })
      try {
        waitMs = await this.tick()
      } catch (error) {
        this.#core.log.error({ error }, "the look at the disk space failed")
      }
      await pause(waitMs, signal)
    }
  }

  /** Gives the time until the next look. */
  async tick(): Promise<number> {
    const core = this.#core
    const amount = await this.#amount()
    const isShort = isSpaceShort(amount)
    const all = await core.store.sandboxes.listAll()
    await this.#quotas.measure(all)
    const hot = all.filter(({ state }) => state.kind === "hot")
    this.#forgetOthers(hot)
    const looks = await Promise.all(hot.map((record) => this.#look(record, isShort)))
    const concerned = (some: Looked[], held: Held) =>
      some.filter((one) => one.held === undefined || one.held === held)
    this.#follow(decideSpace({ ...amount, disks: concerned(looks, "host_disk") }), looks, "host_disk")
    for (const [userId, own] of Map.groupBy(looks, ({ record }) => record.userId)) {
      // Without a quota those that one has held go on.
      const space = quotaSpace(this.#quotas.leftMib(userId) ?? Number.MAX_SAFE_INTEGER)
      this.#follow(decideSpace({ ...space, disks: concerned(own, "disk_quota") }), own, "disk_quota")
    }
    return spaceWaitMs(amount)
  }

  #follow({ hold, release }: SpaceDecision, looks: Looked[], held: Held): void {
    for (const { record } of looks) {
      if (hold.includes(record.id)) this.#act(record, (now) => this.#hold(now, held))
      if (release.includes(record.id)) this.#act(record, (now) => this.#release(now))
    }
  }

  /**
   * Before a held one is asked for something: it goes on if there is room, else this throws the reason. The caller holds the
   * sandbox's turn if `hasTurn`.
   */
  async check(record: SandboxRecord, { hasTurn = false }: { hasTurn?: boolean } = {}): Promise<void> {
    const hold = this.#holds.get(record.id)
    if (!hold) return
    if (hold.held === "host_disk" && (await this.hasRoom())) {
      if (hasTurn) await this.#release(record)
      else await this.#inTurn(record, (now) => this.#release(now))
    }
    if (this.#holds.has(record.id)) throw heldError(record, hold.held)
  }

  /** Its owner wants it to go on though the quota is used up, to remove something inside: it may, until it has grown a little more. */
  async insist(record: SandboxRecord): Promise<void> {
    const leftMib = this.#quotas.leftMib(record.userId) ?? 0
    if (this.heldOf(record.id) !== "disk_quota" || !hasGrace(leftMib)) return
    await this.#inTurn(record, (now) => this.#release(now))
    this.#looks.delete(record.id)
  }

  #isOverQuota({ userId }: SandboxRecord): boolean {
    const leftMib = this.#quotas.leftMib(userId)
    return leftMib !== undefined && isSpaceShort(quotaSpace(leftMib))
  }

  /** Returns whether the host has room for a held sandbox to go on. */
  async hasRoom(): Promise<boolean> {
    return hasSpace(await this.#amount())
  }

  /** Keeps as held one whose machine stands still while there is no room, whoever has stopped it; throws the reason then. */
  async keepHalted(record: SandboxRecord, machine: Machine): Promise<void> {
    const hasRoom = await this.hasRoom()
    if (hasRoom && !this.#isOverQuota(record)) return
    if ((await this.#haltOf(record, machine)) === "none") return
    const held = hasRoom ? "disk_quota" : "host_disk"
    this.#note(record, held)
    throw heldError(record, held)
  }

  /** The error for one whose machine QEMU has stopped for want of space; it is held from now on. Undefined: it has not. */
  async haltedFor(record: SandboxRecord, machine: Machine): Promise<AppError | undefined> {
    if ((await this.#haltOf(record, machine)) !== "disk_full") return undefined
    this.#note(record, "host_disk")
    return heldError(record, "host_disk")
  }

  async #amount(): Promise<{ freeMib: number; reserveMib: number }> {
    return {
      freeMib: await this.#core.host.disks.freeMib(),
      reserveMib: this.#core.settings.diskReserveMib,
    }
  }

  #forgetOthers(hot: SandboxRecord[]): void {
    const known = new Set(hot.map(({ id }) => id))
    for (const id of this.#holds.keys()) if (!known.has(id)) this.#holds.delete(id)
    for (const id of this.#looks.keys()) if (!known.has(id)) this.#looks.delete(id)
  }

  async #look(record: SandboxRecord, isHostShort: boolean): Promise<Looked> {
    const machine = machineOf(this.#core, record)
    const pid = machine?.process.pid ?? 0
    const mib = await this.#core.host.disks.overlayMib(record.id)
    const isShort = isHostShort || this.#isOverQuota(record)
    const before = this.#looks.get(record.id)
    const last = before?.pid === pid ? before : { pid, mib, calmMib: mib }
    this.#looks.set(record.id, { pid, mib, calmMib: isShort ? last.calmMib : mib })
    if (machine && !this.#holds.has(record.id)) await this.#findHalted(record, machine, isShort)
    const hold = this.#holds.get(record.id)
    return {
      record,
      held: hold?.held,
      id: record.id,
      grewMib: mib - last.mib,
      grewSinceShortMib: mib - last.calmMib,
      heldSinceMs: hold?.sinceMs ?? null,
    }
  }

  /** QEMU has stopped it, or a daemon that is gone; whoever has its turn may have paused it for a moment. */
  async #findHalted(record: SandboxRecord, machine: Machine, isShort: boolean): Promise<void> {
    const { turns, guests } = this.#core
    const halt = await this.#haltOf(record, machine)
    const isLeft = halt === "paused" && !turns.isTaken(record.id) && (isShort || !guests.has(record.id))
    if (halt !== "disk_full" && !isLeft) return
    this.#note(record, halt === "paused" && this.#isOverQuota(record) ? "disk_quota" : "host_disk")
  }

  /** A machine that does not answer, or has ended, is others' business. */
  async #haltOf(record: SandboxRecord, machine: Machine): ReturnType<Machines["haltOf"]> {
    try {
      return await this.#core.host.machines.haltOf(machine)
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      this.#core.log.warn({ sandbox: record.id, error }, "a machine does not say whether it runs")
      return "none"
    }
  }

  #note(record: SandboxRecord, held: Held): void {
    if (this.#holds.has(record.id)) return
    this.#holds.set(record.id, { held, sinceMs: this.#core.clock.nowMs() })
    this.#record(record, "sandbox.held", heldText(held))
  }

  #record(record: SandboxRecord, type: "sandbox.held" | "sandbox.released", reason: string): void {
    this.#core.events.record({
      type,
      userId: record.userId,
      sandbox: record,
      meta: { by: "daemon", reason },
    })
    this.#core.log.warn({ sandbox: record.id, reason }, type)
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
      if (now?.state.kind === "hot") await work(now)
    })
  }

  async #hold(record: SandboxRecord, held: Held): Promise<void> {
    const machine = machineOf(this.#core, record)
    if (!machine || this.#holds.has(record.id)) return
    await this.#core.host.machines.pause(machine)
    this.#note(record, held)
  }

  /** It runs when this answers, unless its next write finds no space again. */
  async #release(record: SandboxRecord): Promise<void> {
    const core = this.#core
    const machine = machineOf(core, record)
    if (!machine || !this.#holds.has(record.id)) return
    const guest = core.guests.get(record.id)
    if (guest) {
      try {
        await Promise.all([
          core.host.machines.resume(machine),
          guest.refresh({ deadlineMs: refreshDeadlineMs }),
        ])
      } catch (error) {
        // It has no space again, and stays held.
        if ((await core.host.machines.haltOf(machine)) === "disk_full") return
        dropGuest(core, record.id)
        throw error
      }
    } else {
      await repair(core, record, "it was held for want of disk space")
    }
    // Looked at while it runs, what QEMU remembers of the lack of space is known to be of the past.
    await core.host.machines.haltOf(machine)
    this.#holds.delete(record.id)
    // While it stood still it was not idle.
    core.thermal.forget(record.id)
    this.#record(record, "sandbox.released", "there is room")
  }
}

/** As a part of a sentence about the sandbox. */
export function heldText(held: Held): string {
  return held === "host_disk" ? "the host's disk is nearly full" : "its owner's disk quota is used up"
}

function heldError(record: SandboxRecord, held: Held): AppError {
  const message = `sandbox "${record.name}" is paused: ${heldText(held)}`
  if (held === "disk_quota") {
    return new AppError("limit_exceeded", message, {
      hint: `destroy another sandbox or delete a snapshot, or ask the operator for a higher quota; to remove files inside: bhatti start ${record.name}`,
    })
  }
  return new AppError("unavailable", message, {
    hint: "it goes on by itself when there is room: remove sandboxes or snapshots, or ask the operator to free space",
    retryAfterSec,
  })
}
