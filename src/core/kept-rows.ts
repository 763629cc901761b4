/**
 * Keeps a copy of the database's rows beside the disks, and the directory's mark in step with the database; both lag it
 * by a moment at most. They make it possible to detect a lost or outdated database and to rebuild it.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import { sleep } from "./clock.ts"
import type { Core, OnHost } from "./core.ts"

type Parts = Pick<Core, "clock" | "log" | "store" | "turns"> & OnHost<"disks" | "keptRows">

const everyMs = 1000

/** Runs until the signal aborts, and once more then. */
export async function keepRows(core: Parts, signal: AbortSignal): Promise<void> {
  const keeper = new RowKeeper(core)
  while (!signal.aborted) {
    await keeper.keep()
    await sleep(core.clock, everyMs, signal)
  }
}

export class RowKeeper {
  readonly #core: Parts
  /** The last written text, by id. */
  readonly #written = new Map<string, string>()
  #seenCounter = -1

  constructor(core: Parts) {
    this.#core = core
  }

  /** A full disk blocks nothing: the write is retried later. */
  async keep(): Promise<void> {
    try {
      await this.#keep()
    } catch (error) {
      this.#core.log.error({ error }, "the records beside the disks could not be updated; retrying")
    }
  }

  async #keep(): Promise<void> {
    const { store, turns } = this.#core
    const { counter } = await store.installation()
    if (counter === this.#seenCounter) return
    // First, since it is quick and reveals an outdated database.
    await store.writeMark()
    let isComplete = true
    const rows = await store.recovery.rowsToKeep()
    for (const row of rows) {
      const { id } = row.row
      const text = JSON.stringify(row)
      if (this.#written.get(id) === text) continue
      // A running change holds the turn, so the record is read again afterwards.
      if (turns.isTaken(id)) isComplete = false
      else await turns.take(id, () => this.#write(row, text))
    }
    const ids = new Set<string>(rows.map(({ row }) => row.id))
    for (const id of this.#written.keys()) if (!ids.has(id)) this.#written.delete(id)
    if (isComplete) this.#seenCounter = counter
  }

  async #write(
    kept: Awaited<ReturnType<Core["store"]["recovery"]["rowsToKeep"]>>[number],
    text: string,
  ): Promise<void> {
    const { host, log } = this.#core
    const { state, ...row } = kept
    const diskStamp = kept.kind === "sandbox" ? await this.#stampOf(row.row.id, state) : null
    if (await host.keptRows.write(row.kind, row.row.id, `${JSON.stringify({ ...row, diskStamp })}\n`))
      this.#written.set(row.row.id, text)
    else log.warn({ id: row.row.id, kind: row.kind }, "a row has no directory")
  }

  /** Only for a sandbox saved with its memory: until its next start, disk and memory belong together. */
  async #stampOf(id: string, state: string): Promise<string | null> {
    const { kind, ...rest } = JSON.parse(state) as SandboxRecord["state"]
    if (kind !== "cold" || !("hasSnapshot" in rest) || !rest.hasSnapshot) return null
    return this.#core.host.disks.stampOf(id).catch(() => null)
  }
}
