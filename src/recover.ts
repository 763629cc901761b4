/**
 * `bhatti admin recover` makes the database match its data directory again. It takes the best remaining database, in
 * place or a copy, and puts the rows kept beside the disks over it, in one transaction. It changes no directory of a
 * sandbox or snapshot, and sets a replaced database aside. After a failure the daemon still refuses to start. Safe to
 * repeat.
 */

import { chmodSync, copyFileSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import type { Recovered } from "./cli/operator.ts"
import { Disks } from "./disk/disks.ts"
import { KeptRows } from "./disk/kept-rows.ts"
import { whenMissing } from "./lib/missing-files.ts"
import { lockDataDir } from "./lock.ts"
import { type Belonging, belongingOf, databasePath } from "./store/belonging.ts"
import { candidates } from "./store/copies.ts"
import { beginRecovery, endRecovery, readMark } from "./store/mark.ts"
import { KeptRow, type PutBack, type Recovery } from "./store/recovery.ts"
import type { SandboxState } from "./store/sandboxes.ts"
import { openStore } from "./store/store.ts"

export type RecoverOptions = { dataDir: string; id?: string | undefined; dropSecrets: boolean }

type Kind = KeptRow["kind"]
/** `row` is undefined if there is no readable row beside the disk. */
type Directory = { kind: Kind; id: string; row: KeptRow | undefined }
type Work = {
  rows: Recovery
  directories: Directory[]
  disks: Disks
  /** The database is outdated or missing. */
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
  if (isStale) {
    await beginRecovery(dataDir)
    await replaceDatabase(dataDir, kept, belonging, result)
  }
  const store = await openStore({ dataDir, isRecovery: true, dropSecrets })
  try {
    const directories = [...directoriesOf(kept, "sandbox"), ...directoriesOf(kept, "snapshot")]
    const disks = new Disks({ dataDir })
    await store.recovery.inOneChange(async (rows) => {
      if (result.database === "new" && typeof mark === "object") await rows.setId(mark.id)
      await putRows({ rows, directories, disks, isStale, result })
      await rows.raiseCounter(typeof mark === "object" ? mark.counter : 0)
    })
    await store.writeMark()
    await endRecovery(dataDir)
    return result
  } finally {
    await store.close()
  }
}

function directoriesOf(kept: KeptRows, kind: Kind): Directory[] {
  return kept.read(kind).map(({ id, row }) => {
    const parsed = KeptRow.safeParse(row)
    const isIts = parsed.success && parsed.data.kind === kind && parsed.data.row.id === id
    return { kind, id, row: isIts ? parsed.data : undefined }
  })
}

/** Restores a directory from `set-aside`. */
async function putBack(kept: KeptRows, id: string): Promise<void> {
  const found = kept.listSetAside().findLast((note) => note.id === id)
  const hint = "sudo bhatti doctor lists what is set aside"
  if (!found) throw new AppError("not_found", `${id} is not set aside`, { hint })
  if (!(await kept.putBack(found))) throw new AppError("conflict", `${id} is already in its place`, { hint })
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

/** Removes outdated rows first, so that their names, slots and aliases are free for the current ones. */
async function putRows(work: Work): Promise<void> {
  const { rows, isStale } = work
  const damaged = new Set(await rows.damagedRows())
  const wanted: KeptRow[] = []
  if (isStale) await rows.removePool()
  const pool = new Set(await rows.poolIds())
  for (const kind of ["sandbox", "snapshot"] as const) {
    const known = new Set(await rows.ids(kind))
    const directories = work.directories.filter((one) => one.kind === kind)
    for (const { id, row } of directories) {
      const isKnown = known.delete(id)
      if (pool.has(id) || (isKnown && !isStale && !damaged.has(id))) continue
      if (row) wanted.push(row)
      else tellWithoutRecord(work, kind, id, isKnown)
      // A row from before the create had finished, or an unreadable one: that must not delete a directory.
      await rows.removeRow(kind, id)
    }
    if (!isStale && damaged.size === 0) continue
    for (const id of known) {
      await rows.removeRow(kind, id)
      work.result.notes.push(`${kind} ${id} has no directory any more, and its row is removed`)
    }
  }
  for (const row of wanted) await putRow(work, row)
}

function tellWithoutRecord({ result }: Work, kind: Kind, id: string, isKnown: boolean): void {
  result.notes.push(
    isKnown
      ? `the row of ${kind} ${id} is unreliable and it has no record; the daemon will set it aside`
      : `${kind} ${id} has no record beside its disk, and gets no row; the daemon will set it aside`,
  )
}

async function putRow(work: Work, kept: KeptRow): Promise<void> {
  const { rows, disks, result } = work
  const { id } = kept.row
  let put: PutBack
  try {
    put = await rows.put(kept, kept.kind === "snapshot" ? "ready" : await stateOf(kept, disks))
  } catch (error) {
    // The database cannot be written, which would fail every row.
    if (error instanceof AppError && error.code === "unavailable") throw error
    const reason = error instanceof Error ? error.message : String(error)
    result.notes.push(
      `the row of ${kept.kind} ${id} could not be put back: ${reason}; the daemon will set it aside`,
    )
    return
  }
  const { name, lostAliases, newOwner } = put
  if (newOwner) result.users.push(newOwner)
  const user = newOwner?.name ?? kept.owner.name
  result[kept.kind === "sandbox" ? "sandboxes" : "snapshots"].push({ id, name, user })
  if (name !== kept.row.name)
    result.notes.push(`${kept.kind} "${kept.row.name}" of ${user} is "${name}" now: the name was taken`)
  for (const alias of lostAliases)
    result.notes.push(`"${name}" is not published as "${alias}" any more: the alias was taken`)
}

/**
 * As after a crash during a start: a running machine is found again; otherwise its saved memory counts while it matches
 * the disk.
 */
async function stateOf({ row, diskStamp }: KeptRow, disks: Disks): Promise<SandboxState> {
  const stamp = await disks.stampOf(row.id).catch(whenMissing)
  const fromSnapshot = diskStamp !== null && stamp === diskStamp
  return { kind: "waking", fromSnapshot, ...(fromSnapshot && { diskStamp }) }
}
