/** Creates several sandboxes as one unit: their rows exist already, and if one of them fails, all are removed. */

import { AppError } from "@bhatti/contract/errors"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, ForRemoval } from "./core.ts"
import { removeFailed } from "./destroy.ts"
import { recordFailure } from "./failures.ts"

/** Holds all their turns while `work` makes them, so that no request uses one of them too early. */
export async function allOrNone<T>(
  core: ForRemoval & Pick<Core, "destroying" | "events">,
  records: readonly SandboxRecord[],
  work: () => Promise<T>,
): Promise<T> {
  const outcome = Promise.withResolvers<T>()
  outcome.promise.catch(() => undefined)
  // Requests every turn before waiting for any: a request that sees one of the rows then queues behind us.
  const holds = records.map((record) => {
    const taken = Promise.withResolvers<void>()
    const over = core.turns.take(record.id, async () => {
      taken.resolve()
      const isMade = await outcome.promise.then(
        () => true,
        () => false,
      )
      // A faster destroy may have removed it already.
      if (!isMade && (await core.store.sandboxes.get(record.id))) await removeFailed(core, record)
    })
    return { taken: taken.promise, over }
  })
  try {
    await Promise.all(holds.map(({ taken }) => taken))
    for (const record of records) await checkStillWanted(core, record)
    outcome.resolve(await work())
  } catch (error) {
    for (const record of records)
      recordFailure(core, { type: "sandbox.create_failed", sandbox: record }, error)
    outcome.reject(error)
  }
  await Promise.all(holds.map(({ over }) => over))
  return outcome.promise
}

/** The name is visible before its turn is taken, so a request may have destroyed the sandbox by then. */
export async function checkStillWanted(
  core: Pick<Core, "destroying" | "store">,
  record: SandboxRecord,
): Promise<void> {
  if (!core.destroying.has(record.id) && (await core.store.sandboxes.get(record.id))) return
  throw new AppError("conflict", `sandbox "${record.name}" was destroyed while it was being created`)
}
