/**
 * Compares users' disk quotas with the space their sandboxes take: measured here and kept in the store, which also
 * counts creates. The saved memory of a stopped sandbox does not count: pausing is not its owner's act, and a quota
 * must not prevent the wake that removes it. The limits on sandboxes and their memory bound it.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"

type Parts = Pick<Core, "store"> & OnHost<"disks">

/** A disk without a machine changes only when its sandbox is started or saved. */
const restingLooks = 15

type Id = SandboxRecord["id"]
type Measured = { kind: SandboxRecord["state"]["kind"]; mib: number; looks: number }

export class DiskQuotas {
  readonly #core: Parts
  readonly #measured = new Map<Id, Measured>()
  #leftMib = new Map<SandboxRecord["userId"], number>()

  constructor(core: Parts) {
    this.#core = core
  }

  /** Space that a user may still take, negative if the quota is exceeded. Returns undefined without a quota. */
  leftMib(userId: SandboxRecord["userId"]): number | undefined {
    return this.#leftMib.get(userId)
  }

  /** Measures all sandboxes whose owners have a quota. */
  async measure(records: SandboxRecord[]): Promise<void> {
    const quotas = await this.#core.store.diskUse.quotasOf(new Set(records.map(({ userId }) => userId)))
    const left = new Map(
      quotas.map(({ userId, maxMib, snapshotsMib, imagesMib, templatesMib }) => [
        userId,
        maxMib - snapshotsMib - imagesMib - templatesMib,
      ]),
    )
    const counted = records.filter(({ userId }) => left.has(userId))
    const known = new Set(counted.map(({ id }) => id))
    for (const id of this.#measured.keys()) if (!known.has(id)) this.#measured.delete(id)
    await Promise.all(
      counted.map(async (record) => {
        const mib = await this.#measureOne(record)
        left.set(record.userId, (left.get(record.userId) ?? 0) - mib)
      }),
    )
    this.#leftMib = left
  }

  async #measureOne(record: SandboxRecord): Promise<number> {
    const { kind } = record.state
    // The expected size counts until the disk exists.
    if (kind === "creating") return record.usedMib
    const before = this.#measured.get(record.id)
    const isResting = kind === "cold" && before?.kind === kind && before.looks < restingLooks
    const mib = isResting ? before.mib : await this.#core.host.disks.measureMib(record.id, "counted")
    this.#measured.set(record.id, { kind, mib, looks: isResting ? before.looks + 1 : 0 })
    if (mib !== record.usedMib) await this.#core.store.diskUse.setUsed(record.id, mib)
    return mib
  }
}
