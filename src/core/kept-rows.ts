/**
 * What the database says is kept beside the disks too, and the directory's mark follows the database: at most a moment behind, whoever
 * has changed what. From both a database that is lost, or replaced by an older one, is recognised and made again.
 */

import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core } from "./core.ts"
import { pause } from "./pause.ts"

const everyMs = 1000

/** Runs until the signal says stop, and once more then. */
export async function keepRows(core: Core, signal: AbortSignal): Promise<void> {
  const keeper = new RowKeeper(core)
  while (!signal.aborted) {
    await keeper.keep()
    await pause(everyMs, signal)
  }
}

export class RowKeeper {
  readonly #core: Core
  /** The last written text, by id. */
  readonly #written = new Map<string, string>()
  #seenCounter = -1

  constructor(core: Core) {
    this.#core = core
  }

  /** A full disk holds up nothing: it is tried again. */
  async keep(): Promise<void> {
    try {
      await this.#keep()
    } catch (error) {
      this.#core.log.error(
        { error },
        "what is kept beside the disks could not be brought up to date; trying again",
      )
    }
  }

  async #keep(): Promise<void> {
    const { store, turns } = this.#core
    const { counter } = await store.installation()
    if (counter === this.#seenCounter) return
    // First, since it is quickly done, and tells an older database.
    await store.writeMark()
    let isComplete = true
    const rows = await store.recovery.rowsToKeep()
    for (const row of rows) {
      const { id } = row.row
      const text = JSON.stringify(row)
      if (this.#written.get(id) === text) continue
      // Somebody is changing it, so it is looked at again afterwards.
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

  /** Only of one that is on disk with its memory: from then until it starts the two belong together. */
  async #stampOf(id: string, state: string): Promise<string | null> {
    const { kind, ...rest } = JSON.parse(state) as SandboxRecord["state"]
    if (kind !== "cold" || !("hasSnapshot" in rest) || !rest.hasSnapshot) return null
    return this.#core.host.disks.stampOf(id).catch(() => null)
  }
}
