/** Creates several sandboxes at once, as copies of a source or not: all of them, or none. */

import { AppError } from "@bhatti/contract/errors"
import { clonedMib } from "../rules/host-memory.ts"
import { checkCount, checkInput } from "../rules/input.ts"
import type { Account } from "../store/users.ts"
import { destroyIfAbandoned } from "./abandoned.ts"
import { allOrNone, checkStillWanted } from "./all-or-none.ts"
import type { Core } from "./core.ts"
import { planCreate, recordCreated, startNew, takePooled } from "./create.ts"
import { addAllNamed } from "./create-checks.ts"
import { forkSandbox } from "./fork.ts"
import { inParallel } from "./in-parallel.ts"
import { namesOf } from "./names.ts"
import type { PooledSandbox } from "./parts.ts"
import { type CreateSandbox, describeById, type Sandbox } from "./sandbox.ts"

/** More would only share the same processors. */
const createsAtOnce = 4

export async function createSandboxes(
  core: Core,
  account: Account,
  input: CreateSandbox,
  { count, signal }: { count: number; signal?: AbortSignal },
): Promise<Sandbox[]> {
  const startedAt = core.clock.nowMs()
  checkInput(input)
  checkCount(count)
  if (input.ifNotExists)
    throw new AppError("invalid", "only one sandbox can be made if it does not exist yet")
  if (count > account.maxSandboxes) {
    throw new AppError(
      "limit_exceeded",
      `${count} sandboxes are above your limit of ${account.maxSandboxes}`,
      { hint: "ask for fewer, or the operator for a higher limit" },
    )
  }
  const names = namesOf(input.name, count)
  if (input.from !== undefined) return forkSandbox(core, account, input.from, input, { count, signal })
  const plan = await planCreate(core, account, input)
  using _going = core.pool.beginCreate()

  const pooled: (PooledSandbox | undefined)[] = []
  for (const _ of names) pooled.push(await takePooled(core, plan))
  const wanted = (given: string[]) =>
    given.map((name, index) => ({ input: { ...plan.wanted, name }, pooledId: pooled[index]?.id }))
  const add = (given: string[]) => core.store.sandboxes.addAll(account, wanted(given), core.host.machines)
  const records = await addAllNamed(names, add).catch((error: unknown) => {
    for (const one of pooled) if (one) core.pool.giveBack(one)
    throw error
  })
  return await allOrNone(core, records, async () => {
    const from = new Map<string, Parameters<typeof recordCreated>[2]["from"]>()
    await using undo = new AsyncDisposableStack()
    // Closes the channels of sandboxes that have not begun; their machines go with their rows.
    undo.defer(() => {
      for (const one of pooled) one?.guest.close()
    })
    await inParallel(records, createsAtOnce, async (record, index) => {
      await checkStillWanted(core, record)
      using _memory = core.memory.promise(clonedMib(plan.spec))
      const started = await startNew(core, record, input, { ...plan, pooled: pooled[index], signal })
      from.set(record.id, started.from)
    })
    await core.store.sandboxes.setBatchDone(records)
    undo.move()
    for (const record of records)
      recordCreated(core, record, { from: from.get(record.id) ?? "template", startedAt })
    destroyIfAbandoned(core, account, records, signal)
    return Promise.all(records.map(({ id }) => describeById(core, id)))
  })
}
