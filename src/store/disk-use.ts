/**
 * Disk use per user: the blocks of their sandboxes' directories and of templates that only they use, as last measured
 * by the daemon, of their named snapshots, of their images and of their build cache. An unfinished sandbox or snapshot
 * counts from the moment its row is written, an image from the moment its size is known.
 */

import { AppError } from "@bhatti/contract/errors"
import { type SandboxId, UserId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import type { Schema, UserRow } from "./schema.ts"
import { among } from "./sqlite/queries.ts"

const mebibyte = 1024 * 1024

/** A user's quota, and the disk use of their named snapshots, of their images and of templates that only they use. */
export type DiskQuota = {
  userId: UserId
  maxMib: number
  snapshotsMib: number
  imagesMib: number
  templatesMib: number
}

export class DiskUse {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** The quotas of those users that have one. */
  async quotasOf(users: Iterable<UserId>): Promise<DiskQuota[]> {
    const rows = await this.#db
      .selectFrom("users")
      .select(["id", "max_disk_mib", snapshotsMib(sql.ref("users.id")).as("snapshots")])
      .select(templatesMib(sql.ref("users.id")).as("templates"))
      .select(imagesMib(sql.ref("users.id")).as("images"))
      .where("id", "in", among(users))
      .where("max_disk_mib", ">", 0)
      .execute()
    return rows.map((row) => ({
      userId: UserId.parse(row.id),
      maxMib: row.max_disk_mib,
      snapshotsMib: Number(row.snapshots),
      imagesMib: Number(row.images),
      templatesMib: Number(row.templates),
    }))
  }

  /** The rest of a user's quota, as last measured; infinite without one. */
  async leftMib(userId: UserId): Promise<number> {
    const user = await this.#db.selectFrom("users").selectAll().where("id", "=", userId).executeTakeFirst()
    return user ? await diskLeftMib(this.#db, user) : 0
  }

  async setUsed(id: SandboxId, usedMib: number): Promise<void> {
    await this.#db.updateTable("sandboxes").set({ used_mib: usedMib }).where("id", "=", id).execute()
  }
}

type Expression = ReturnType<typeof sql.ref> | ReturnType<typeof sql.val>

export function diskUsedMib(userId: Expression) {
  return sql<number>`(coalesce((select sum(used_mib) from sandboxes where user_id = ${userId}), 0)
    + ${templatesMib(userId)} + ${snapshotsMib(userId)} + ${imagesMib(userId)})`
}

/** Images, disks of the build cache, and the space that running tasks have reserved. */
function imagesMib(userId: Expression) {
  return sql<number>`((cast(coalesce((select sum(bytes) from images where user_id = ${userId}), 0) as bigint)
    + cast(coalesce((select sum(bytes) from build_steps where user_id = ${userId}), 0) as bigint)
    + ${mebibyte - 1}) / ${mebibyte}
    + coalesce((select sum(reserved_mib) from tasks where user_id = ${userId} and ended_at is null), 0))`
}

function templatesMib(userId: Expression) {
  return sql<number>`coalesce((select sum(used_mib) from template_use where user_id = ${userId}), 0)`
}

function snapshotsMib(userId: Expression) {
  return sql<number>`(cast(coalesce((select sum(bytes) from snapshots where user_id = ${userId}), 0) as bigint)
    + ${mebibyte - 1}) / ${mebibyte}`
}

/** Refuses more than the user's quota; call it with the user locked. */
export async function checkDiskQuota(db: Kysely<Schema>, user: UserRow, neededMib: number): Promise<void> {
  const max = user.max_disk_mib
  const left = await diskLeftMib(db, user)
  if (max === 0 || neededMib <= left) return
  throw new AppError(
    "limit_exceeded",
    `your disk quota is ${max} MB, of which ${max - left} MB are used, and ${neededMib} MB more are needed`,
    { hint: "destroy a sandbox, delete a snapshot or an image, or ask the operator for a higher quota" },
  )
}

/** Returns infinity without a quota, and less than 0 above it; call it with the user locked. */
export async function diskLeftMib(db: Kysely<Schema>, user: UserRow): Promise<number> {
  const max = user.max_disk_mib
  if (max === 0) return Number.POSITIVE_INFINITY
  const { used } = await db.selectNoFrom(diskUsedMib(sql.val(user.id)).as("used")).executeTakeFirstOrThrow()
  return max - Number(used)
}
