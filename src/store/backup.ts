/**
 * The database of a backup: it names only what was copied for it. Every sandbox in it is stopped, whatever its state
 * here.
 */

import type { Kysely } from "kysely"
import { readInstallation } from "./changes.ts"
import { anotherClocksColumns } from "./lifetime.ts"
import { markText } from "./mark.ts"
import { SandboxState } from "./sandboxes.ts"
import type { Schema } from "./schema.ts"
import { toSingleFile } from "./sqlite/file.ts"

export type Copied = {
  sandboxes: ReadonlyMap<string, { hasMemory: boolean }>
  snapshots: ReadonlySet<string>
}
export type Copy = { kind: "sandbox" | "snapshot"; id: string }

export async function fitToBackup(
  db: Kysely<Schema>,
  copied: Copied,
): Promise<{ mark: string; gone: Copy[] }> {
  const gone: Copy[] = []
  const sandboxes = await db.selectFrom("sandboxes").select(["id", "user_id", "state", "lifetime"]).execute()
  const present = new Set<string>()
  for (const { id, user_id, state, lifetime } of sandboxes) {
    const copy = copied.sandboxes.get(id)
    const before = SandboxState.parse(JSON.parse(state))
    if (!copy || user_id === null || before.kind === "destroying") {
      await db.deleteFrom("sandboxes").where("id", "=", id).execute()
      continue
    }
    present.add(id)
    const isWanted = before.kind === "cold" && before.isWanted
    const cold: SandboxState = {
      kind: "cold",
      hasSnapshot: copy.hasMemory,
      reason: copy.hasMemory
        ? null
        : before.kind === "cold"
          ? before.reason
          : "it was restored from a backup of its disk",
      ...(isWanted && { isWanted }),
    }
    await db
      .updateTable("sandboxes")
      .set({ state: JSON.stringify(cold), ...anotherClocksColumns(lifetime) })
      .where("id", "=", id)
      .execute()
  }
  for (const id of copied.sandboxes.keys()) if (!present.has(id)) gone.push({ kind: "sandbox", id })
  const snapshots = await db.selectFrom("snapshots").select(["id", "state"]).execute()
  const kept = new Set(
    snapshots.filter(({ id, state }) => state === "ready" && copied.snapshots.has(id)).map(({ id }) => id),
  )
  for (const { id } of snapshots)
    if (!kept.has(id)) await db.deleteFrom("snapshots").where("id", "=", id).execute()
  for (const id of copied.snapshots) if (!kept.has(id)) gone.push({ kind: "snapshot", id })
  await db.deleteFrom("host_clock").execute()
  // Caches are not copied.
  await db.deleteFrom("build_steps").execute()
  await db.deleteFrom("build_results").execute()
  const mark = markText(await readInstallation(db))
  await toSingleFile(db)
  return { mark, gone }
}
