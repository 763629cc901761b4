/**
 * Tasks: long work with an id, which outlives the client that asked for it. A row says how far it is and how it ended;
 * one that was running when its daemon died ends as `interrupted` at the next start.
 */

import { AppError } from "@bhatti/contract/errors"
import { TaskId, UserId } from "@bhatti/contract/ids"
import { limits } from "@bhatti/contract/limits"
import type { Kysely } from "kysely"
import { z } from "zod"
import { randomHex } from "../lib/random-hex.ts"
import { checkDiskQuota, diskLeftMib } from "./disk-use.ts"
import type { Schema, TaskRow } from "./schema.ts"
import { insertionOrder } from "./sqlite/queries.ts"
import { withUserLocked } from "./user-lock.ts"

const mebibyte = 1024 * 1024

export const TaskProgress = z.object({
  /** Its present step, such as `fetching`. */
  step: z.string().default("waiting"),
  layers: z.array(z.object({ digest: z.string(), bytes: z.number(), total: z.number() })).default([]),
  /** The newest part of what it has printed, and how many characters came before. */
  output: z.object({ start: z.number(), text: z.string() }).nullable().default(null),
})
export type TaskProgress = z.input<typeof TaskProgress>

export const TaskError = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().nullable().default(null),
})
export type TaskError = z.infer<typeof TaskError>

export const taskStates = ["running", "cancelling", "done", "failed", "cancelled", "interrupted"] as const
export type TaskState = (typeof taskStates)[number]

export type TaskRecord = {
  id: TaskId
  userId: UserId
  kind: string
  /** Its object, in its owner's words. */
  subject: string
  state: TaskState
  progress: z.output<typeof TaskProgress>
  /** Names and ids of its outcome, by kind of task. */
  result: Record<string, string> | null
  error: TaskError | null
  createdAt: string
  endedAt: string | null
}

export type TaskEnd =
  | { state: "done"; result: Record<string, string> }
  | { state: "failed"; error: TaskError }
  | { state: "cancelled" | "interrupted" }

export class Tasks {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Writes the intent; refused above the user's limit of running tasks. */
  async add(userId: UserId, { kind, subject }: { kind: string; subject: string }): Promise<TaskRecord> {
    const row: TaskRow = {
      id: `task_${randomHex(8)}`,
      user_id: userId,
      kind,
      subject,
      state: "running",
      progress: JSON.stringify(TaskProgress.parse({})),
      result: null,
      error: null,
      reserved_mib: 0,
      created_at: new Date().toISOString(),
      ended_at: null,
    }
    return await withUserLocked(this.#db, userId, async (db) => {
      await refuseTooMany(db, userId)
      await db.insertInto("tasks").values(row).execute()
      await removeOldest(db, userId)
      return toRecord(row)
    })
  }

  /** Refuses what a task could not do now; returns the rest of the user's quota, which may be infinite. */
  async leftMib(userId: UserId): Promise<number> {
    return await withUserLocked(this.#db, userId, async (db, user) => {
      await refuseTooMany(db, userId)
      await checkDiskQuota(db, user, 1)
      return await diskLeftMib(db, user)
    })
  }

  /** Reserves space of the owner's quota until the task ends; replaces what it had reserved. */
  async reserve(task: Pick<TaskRecord, "id" | "userId">, neededMib: number): Promise<void> {
    await withUserLocked(this.#db, task.userId, async (db, user) => {
      await releaseTask(db, task.id)
      await checkDiskQuota(db, user, neededMib)
      await db.updateTable("tasks").set({ reserved_mib: neededMib }).where("id", "=", task.id).execute()
    })
  }

  /**
   * The same for an image whose size nobody knows yet: reserves up to `wantedMib`, as far as the quota goes. The space
   * of the image with that name counts as free, since it is replaced. `leftMib` may be infinite. Throws if not even
   * `leastMib` are left.
   */
  async reserveForImage(
    task: Pick<TaskRecord, "id" | "userId">,
    { wantedMib, leastMib, name }: { wantedMib: number; leastMib: number; name: string },
  ): Promise<{ grantedMib: number; leftMib: number }> {
    return await withUserLocked(this.#db, task.userId, async (db, user) => {
      await releaseTask(db, task.id)
      const before = await db
        .selectFrom("images")
        .select("bytes")
        .where("user_id", "=", task.userId)
        .where("name", "=", name)
        .executeTakeFirst()
      const replacedMib = Math.floor(Number(before?.bytes ?? 0) / mebibyte)
      await checkDiskQuota(db, user, Math.max(1, leastMib) - replacedMib)
      const leftMib = (await diskLeftMib(db, user)) + replacedMib
      const grantedMib = Math.min(wantedMib, leftMib)
      const reserved = user.max_disk_mib === 0 ? 0 : Math.max(0, grantedMib - replacedMib)
      await db.updateTable("tasks").set({ reserved_mib: reserved }).where("id", "=", task.id).execute()
      return { grantedMib, leftMib }
    })
  }

  /** Returns false if the task must not go on: it is being cancelled, or gone. */
  async setProgress(id: TaskId, progress: TaskProgress): Promise<boolean> {
    const changed = await this.#db
      .updateTable("tasks")
      .set({ progress: JSON.stringify(progress) })
      .where("id", "=", id)
      .where("state", "=", "running")
      .executeTakeFirst()
    return changed.numUpdatedRows > 0n
  }

  /** Returns false if it had ended. */
  async setCancelling(id: TaskId): Promise<boolean> {
    const changed = await this.#db
      .updateTable("tasks")
      .set({ state: "cancelling" })
      .where("id", "=", id)
      .where("ended_at", "is", null)
      .executeTakeFirst()
    return changed.numUpdatedRows > 0n
  }

  /** For one whose work has not begun. */
  async remove(id: TaskId): Promise<void> {
    await this.#db.deleteFrom("tasks").where("id", "=", id).execute()
  }

  async end(id: TaskId, end: TaskEnd): Promise<void> {
    await this.#db
      .updateTable("tasks")
      .set({
        state: end.state,
        result: end.state === "done" ? JSON.stringify(end.result) : null,
        error: end.state === "failed" ? JSON.stringify(end.error) : null,
        ended_at: new Date().toISOString(),
      })
      .where("id", "=", id)
      .where("ended_at", "is", null)
      .execute()
  }

  /** Ends the tasks that a daemon of this host had running when it died; returns how many there were. */
  async interruptOnHost(): Promise<number> {
    const changed = await this.#db
      .updateTable("tasks")
      .set({ state: "interrupted", ended_at: new Date().toISOString() })
      .where("ended_at", "is", null)
      .executeTakeFirst()
    return Number(changed.numUpdatedRows)
  }

  async removeOldOnHost(nowMs: number): Promise<void> {
    const before = new Date(nowMs - limits.taskDaysKept * 86_400_000).toISOString()
    await this.#db.deleteFrom("tasks").where("ended_at", "<", before).execute()
  }

  async find(userId: UserId, id: string): Promise<TaskRecord | undefined> {
    const row = await this.#db
      .selectFrom("tasks")
      .selectAll()
      .where("user_id", "=", userId)
      .where("id", "=", id)
      .executeTakeFirst()
    return row && toRecord(row)
  }

  /** Newest last. */
  async listOf(userId: UserId): Promise<TaskRecord[]> {
    const rows = await this.#db
      .selectFrom("tasks")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("created_at")
      .orderBy(insertionOrder)
      .execute()
    return rows.map(toRecord)
  }
}

async function refuseTooMany(db: Kysely<Schema>, userId: UserId): Promise<void> {
  const { running } = await db
    .selectFrom("tasks")
    .select(({ fn }) => fn.countAll().as("running"))
    .where("user_id", "=", userId)
    .where("ended_at", "is", null)
    .executeTakeFirstOrThrow()
  if (Number(running) < limits.tasksRunningMax) return
  throw new AppError("limit_exceeded", `you have ${limits.tasksRunningMax} tasks running already`, {
    hint: "wait for one, or cancel it",
    subject: { kind: "task" },
    retryable: true,
  })
}

export async function releaseTask(db: Kysely<Schema>, id: string): Promise<void> {
  await db.updateTable("tasks").set({ reserved_mib: 0 }).where("id", "=", id).execute()
}

/** Ended tasks are kept within a bound. */
async function removeOldest(db: Kysely<Schema>, userId: UserId): Promise<void> {
  await db
    .deleteFrom("tasks")
    .where("user_id", "=", userId)
    .where("ended_at", "is not", null)
    .where("id", "not in", (eb) =>
      eb
        .selectFrom("tasks as newest")
        .select("newest.id")
        .where("newest.user_id", "=", userId)
        .where("newest.ended_at", "is not", null)
        .orderBy("newest.created_at", "desc")
        .orderBy("newest.id", "desc")
        .limit(limits.tasksKept),
    )
    .execute()
}

function toRecord(row: TaskRow): TaskRecord {
  return {
    id: TaskId.parse(row.id),
    userId: UserId.parse(row.user_id),
    kind: row.kind,
    subject: row.subject,
    state: z.enum(taskStates).parse(row.state),
    progress: TaskProgress.parse(JSON.parse(row.progress)),
    result: row.result === null ? null : z.record(z.string(), z.string()).parse(JSON.parse(row.result)),
    error: row.error === null ? null : TaskError.parse(JSON.parse(row.error)),
    createdAt: row.created_at,
    endedAt: row.ended_at,
  }
}
