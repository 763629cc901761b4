/**
 * `bhatti admin recover`: makes the database fit its data directory again. The best database that is left, the one in place or a copy,
 * is taken as it is, and rows that lie beside the disks are put over it. No directory of a sandbox or snapshot is changed, and a
 * database that is replaced is set aside. Safe to repeat.
 */

import { chmodSync, copyFileSync } from "node:fs"
import type { Recovered } from "./cli/operator.ts"
import { AppError } from "./contract/errors.ts"
import { Disks } from "./disk/disks.ts"
import { KeptRows } from "./disk/kept-rows.ts"
import { errorCodeOf } from "./lib/error-code.ts"
import { lockDataDir } from "./lock.ts"
import { type Belonging, belongingOf, databasePath } from "./store/belonging.ts"
import { candidates } from "./store/copies.ts"
import { readMark } from "./store/mark.ts"
import { KeptRow } from "./store/recovery.ts"
import type { SandboxState } from "./store/sandboxes.ts"
import { openStore, type Store } from "./store/store.ts"

export type RecoverOptions = { dataDir: string; id?: string | undefined; dropSecrets: boolean }

type Work = {
  store: Store
  kept: KeptRows
  disks: Disks
  /** The database speaks of an earlier time, or of none. */
  isStale: boolean
  result: Recovered
}

export async function recover({ dataDir, id, dropSecrets }: RecoverOptions): Promise<Recovered> {
  process.umask(0o077)
  using _lock = lockDataDir(dataDir)
  const kept = new KeptRows({ dataDir })
  const mark = readMark(dataDir)
  const belonging = belongingOf(dataDir)
  if (belonging.kind === "new")
    throw new AppError("not_found", `there is nothing to recover in ${dataDir}`, {
      hint: `sudo bhatti init --data-dir ${dataDir}`,
    })
  const result: Recovered = { database: "in place", sandboxes: [], snapshots: [], users: [], notes: [] }
  if (id !== undefined) await putBack(kept, id)
  const isStale = belonging.kind === "misfit"
  if (isStale) await replaceDatabase(dataDir, kept, belonging, result)
  const store = await openStore({ dataDir, isRecovery: true, dropSecrets })
  try {
    const work: Work = { store, kept, disks: new Disks({ dataDir }), isStale, result }
    if (result.database === "new" && typeof mark === "object") await store.recovery.setId(mark.id)
    await putRows(work, "sandbox")
    await putRows(work, "snapshot")
    await store.recovery.raiseCounter(typeof mark === "object" ? mark.counter : 0)
    return result
  } finally {
    await store.close()
  }
}

/** From `set-aside`. */
async function putBack(kept: KeptRows, id: string): Promise<void> {
  const found = kept.listSetAside().findLast((note) => note.id === id)
  const hint = "sudo bhatti doctor lists what is set aside"
  if (!found) throw new AppError("not_found", `${id} is not set aside`, { hint })
  if (!(await kept.putBack(found))) throw new AppError("conflict", `${id} is in its place already`, { hint })
}

async function replaceDatabase(
  dataDir: string,
  kept: KeptRows,
  { fault }: Extract<Belonging, { kind: "misfit" }>,
  result: Recovered,
): Promise<void> {
  const mark = readMark(dataDir)
  const [best] = candidates(dataDir, databasePath(dataDir), typeof mark === "object" ? mark.id : undefined)
  if (best && !best.isCopy) return
  if (fault !== "missing")
    result.notes.push(
      `the database that ${fault === "foreign" ? "belongs elsewhere" : `was ${fault}`} is in ${await kept.setAsideDatabase(fault)}`,
    )
  else await kept.setAsideDatabase(fault)
  result.database = best?.path ?? "new"
  if (!best) return
  copyFileSync(best.path, databasePath(dataDir))
  chmodSync(databasePath(dataDir), 0o600)
}

async function putRows(work: Work, kind: KeptRow["kind"]): Promise<void> {
  const { store, kept, isStale, result } = work
  const damaged = new Set(await store.recovery.damagedRows())
  const rows = new Set(await store.recovery.ids(kind))
  const directories = kept.read(kind)
  for (const { id, row } of directories) {
    if (rows.has(id) && !isStale && !damaged.has(id)) continue
    const parsed = KeptRow.safeParse(row)
    if (parsed.success && parsed.data.kind === kind && parsed.data.row.id === id) {
      await putRow(work, parsed.data)
      continue
    }
    if (!rows.has(id)) {
      result.notes.push(
        `${kind} ${id} has no record beside its disk, and gets no row; the daemon will set it aside`,
      )
    } else {
      // Of a time when it was being made, or that cannot be read: nothing is to be removed for what such a row says.
      await store.recovery.removeRow(kind, id)
      result.notes.push(
        `the row of ${kind} ${id} is not to be trusted and it has no record; the daemon will set it aside`,
      )
    }
  }
  if (!isStale && damaged.size === 0) return
  const present = new Set(directories.map(({ id }) => id))
  for (const id of rows) {
    if (present.has(id)) continue
    await store.recovery.removeRow(kind, id)
    result.notes.push(`${kind} ${id} has no directory any more, and its row is removed`)
  }
}

async function putRow({ store, disks, result }: Work, kept: KeptRow): Promise<void> {
  const { id } = kept.row
  const owner = await store.recovery.addOwner(kept.owner)
  if (owner) result.users.push(owner)
  const user = owner?.name ?? kept.owner.name
  const state = kept.kind === "snapshot" ? "ready" : await stateOf(kept, disks)
  const { name, lostAliases } = await store.recovery.put(kept, state)
  result[kept.kind === "sandbox" ? "sandboxes" : "snapshots"].push({ id, name, user })
  if (name !== kept.row.name)
    result.notes.push(`${kept.kind} "${kept.row.name}" of ${user} is "${name}" now: the name was taken`)
  for (const alias of lostAliases)
    result.notes.push(`"${name}" is not published as "${alias}" any more: the alias was taken`)
}

/** As after a crash in the middle of a start: a machine that runs is found again, else its memory counts while the disk is that memory's. */
async function stateOf({ row, diskStamp }: KeptRow, disks: Disks): Promise<SandboxState> {
  const stamp = await disks.stampOf(row.id).catch((error: unknown) => {
    if (errorCodeOf(error) === "ENOENT") return undefined
    throw error
  })
  const fromSnapshot = diskStamp !== null && stamp === diskStamp
  return { kind: "waking", fromSnapshot, ...(fromSnapshot && { diskStamp }) }
}
