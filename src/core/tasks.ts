/**
 * Tasks: long work that outlives the request that began it. A row in the store says how far it is; here are those that
 * this daemon runs.
 */

import { AppError } from "@bhatti/contract/errors"
import { toAppError } from "../lib/app-error.ts"
import type { TaskEnd, TaskProgress, TaskRecord } from "../store/tasks.ts"
import type { Account } from "../store/users.ts"
import { sleep } from "./clock.ts"
import type { Core } from "./core.ts"

const progressEveryMs = 250
const followEveryMs = 250
/** How long a cancel waits until nothing is left; the task ends later by itself. */
const cancelWaitMs = 30_000

export type RunningTask = {
  record: TaskRecord
  /** Aborts when the task is cancelled, or the daemon stops. */
  signal: AbortSignal
  progress: (progress: TaskProgress) => void
}

type Parts = Pick<Core, "clock" | "log" | "store" | "tasks">

/** Begins the work and returns at once; its result becomes the task's, which may have been added before. */
export async function startTask(
  core: Parts,
  account: Account,
  about: { kind: string; subject: string } | { record: TaskRecord },
  work: (task: RunningTask) => Promise<Record<string, string>>,
): Promise<TaskRecord> {
  const record = "record" in about ? about.record : await core.store.tasks.add(account.id, about)
  const stop = new AbortController()
  const over = new AbortController()
  let latest: TaskProgress | undefined
  const task = { record, signal: stop.signal, progress: (progress: TaskProgress) => (latest = progress) }
  const write = async () => {
    const progress = latest
    latest = undefined
    if (progress && !(await core.store.tasks.setProgress(record.id, progress))) stop.abort(cancelled())
  }
  const writing = (async () => {
    while (!over.signal.aborted) {
      await write()
      await sleep(core.clock, progressEveryMs, over.signal)
    }
  })().catch((error: unknown) => stop.abort(error))
  const running = (async () => {
    const end = await endOf(core, record, stop, () => work(task))
    over.abort()
    await writing
    await write().catch(() => undefined)
    await core.store.tasks.end(record.id, end)
  })()
  const ended = running
    .catch((error: unknown) => core.log.error({ task: record.id, error }, "a task's end was not stored"))
    .finally(() => core.tasks.delete(record.id))
  core.tasks.set(record.id, { stop, ended })
  return record
}

async function endOf(
  core: Pick<Core, "log">,
  { id, kind }: TaskRecord,
  stop: AbortController,
  work: () => Promise<Record<string, string>>,
): Promise<TaskEnd> {
  try {
    return { state: "done", result: await work() }
  } catch (error) {
    const reason = stop.signal.aborted ? stop.signal.reason : undefined
    if (reason instanceof TaskStopped) return { state: reason.state }
    core.log.warn({ task: id, kind, error }, "a task failed")
    const { code, message, hint = null } = toAppError(error)
    return { state: "failed", error: { code, message, hint } }
  }
}

class TaskStopped extends Error {
  override readonly name = "TaskStopped"
  readonly state: "cancelled" | "interrupted"

  constructor(state: "cancelled" | "interrupted") {
    super(`the task was ${state}`)
    this.state = state
  }
}

function cancelled(): TaskStopped {
  return new TaskStopped("cancelled")
}

export async function listTasks({ store }: Pick<Core, "store">, account: Account): Promise<TaskRecord[]> {
  return await store.tasks.listOf(account.id)
}

export async function findTask(
  { store }: Pick<Core, "store">,
  account: Account,
  id: string,
): Promise<TaskRecord> {
  const record = await store.tasks.find(account.id, id)
  if (record) return record
  throw new AppError("not_found", `no task "${id}"`, { subject: { kind: "task", name: id } })
}

/** A task that has ended stays as it is. Returns it once nothing of it is left. */
export async function cancelTask(core: Parts, account: Account, id: string): Promise<TaskRecord> {
  const record = await findTask(core, account, id)
  if (!(await core.store.tasks.setCancelling(record.id))) return await findTask(core, account, id)
  const going = core.tasks.get(record.id)
  going?.stop.abort(cancelled())
  const late = new AbortController()
  if (going) await Promise.race([going.ended, sleep(core.clock, cancelWaitMs, late.signal)])
  late.abort()
  return await findTask(core, account, id)
}

/** Yields the task whenever it has changed, until it has ended or `signal` aborts; `quiet` after `quietMs` without. */
export async function* followTask(
  core: Parts,
  account: Account,
  id: string,
  { signal, quietMs }: { signal: AbortSignal; quietMs: number },
): AsyncGenerator<TaskRecord | "quiet"> {
  let before = ""
  let toldMs = core.clock.nowMs()
  while (!signal.aborted) {
    const record = await findTask(core, account, id)
    const text = JSON.stringify(record)
    const isQuiet = text === before
    before = text
    if (!isQuiet || core.clock.nowMs() - toldMs > quietMs) {
      toldMs = core.clock.nowMs()
      yield isQuiet ? "quiet" : record
    }
    if (record.endedAt !== null) return
    const pause = sleep(core.clock, followEveryMs, signal)
    const going = core.tasks.get(record.id)
    await (going ? Promise.race([going.ended, pause]) : pause)
  }
}

/** When the daemon stops: each ends as interrupted, and leaves nothing. */
export async function stopTasks(core: Pick<Core, "tasks">): Promise<void> {
  const going = [...core.tasks.values()]
  for (const { stop } of going) stop.abort(new TaskStopped("interrupted"))
  await Promise.all(going.map(({ ended }) => ended))
}
