/**
 * The build cache of each user: disks after steps of builds, by what decided their content, and which disk of an image
 * a whole build has ended with. A row exists before its disk is written, so nothing lies on the host without one.
 */

import { type UserId, UserId as UserIdSchema } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import { z } from "zod"
import { randomHex } from "../lib/random-hex.ts"
import { checkDiskQuota } from "./disk-use.ts"
import type { BuildStepRow, Schema } from "./schema.ts"
import { withUserLocked } from "./user-lock.ts"

export type BuildStep = {
  id: string
  userId: UserId
  key: string
  state: "creating" | "ready"
  /** The template below its disk, and the image below that. */
  templateId: string
  imageName: string
  imageHash: string
  diskMib: number
  bytes: number
  usedAt: string
}

export type NewBuildStep = Pick<BuildStep, "key" | "templateId" | "imageName" | "imageHash" | "diskMib">

const mebibyte = 1024 * 1024

export class BuildCache {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Writes the intent to keep a disk of about that size; refused above the user's quota. */
  async add(userId: UserId, step: NewBuildStep, { neededMib }: { neededMib: number }): Promise<BuildStep> {
    const row: BuildStepRow = {
      id: `build_${randomHex(8)}`,
      user_id: userId,
      key: step.key,
      state: "creating",
      template_id: step.templateId,
      image_name: step.imageName,
      image_hash: step.imageHash,
      disk_mib: step.diskMib,
      bytes: neededMib * mebibyte,
      used_at: new Date().toISOString(),
    }
    return await withUserLocked(this.#db, userId, async (db, user) => {
      await checkDiskQuota(db, user, neededMib)
      await db.insertInto("build_steps").values(row).execute()
      return toStep(row)
    })
  }

  async setReady(id: string, { bytes }: { bytes: number }): Promise<void> {
    await this.#db.updateTable("build_steps").set({ state: "ready", bytes }).where("id", "=", id).execute()
  }

  /** The newest one of that key, which counts as used now. */
  async find(userId: UserId, key: string): Promise<BuildStep | undefined> {
    const row = await this.#db
      .selectFrom("build_steps")
      .selectAll()
      .where("user_id", "=", userId)
      .where("key", "=", key)
      .where("state", "=", "ready")
      .orderBy("used_at", "desc")
      .executeTakeFirst()
    if (!row) return undefined
    await this.#db
      .updateTable("build_steps")
      .set({ used_at: new Date().toISOString() })
      .where("id", "=", row.id)
      .execute()
    return toStep(row)
  }

  /** A user's, the longest unused first. */
  async listOf(userId: UserId): Promise<BuildStep[]> {
    const rows = await this.#db
      .selectFrom("build_steps")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("used_at")
      .execute()
    return rows.map(toStep)
  }

  /** All users', also those of deleted users, the longest unused first. */
  async listOnHost(): Promise<BuildStep[]> {
    return (await this.#db.selectFrom("build_steps").selectAll().orderBy("used_at").execute()).map(toStep)
  }

  async remove(id: string): Promise<void> {
    await this.#db.deleteFrom("build_steps").where("id", "=", id).execute()
  }

  async putResult(userId: UserId, key: string, diskName: string): Promise<void> {
    await this.#db
      .insertInto("build_results")
      .values({ user_id: userId, key, disk_name: diskName })
      .onConflict((on) => on.columns(["user_id", "key"]).doUpdateSet({ disk_name: diskName }))
      .execute()
  }

  async findResult(userId: UserId, key: string): Promise<string | undefined> {
    const row = await this.#db
      .selectFrom("build_results")
      .select("disk_name")
      .where("user_id", "=", userId)
      .where("key", "=", key)
      .executeTakeFirst()
    return row?.disk_name
  }

  /** Forgets results whose disk no image has any more. */
  async forgetResultsOnHost(): Promise<void> {
    await this.#db
      .deleteFrom("build_results")
      .where(sql<boolean>`disk_name not in (select disk_name from images)`)
      .execute()
  }
}

function toStep(row: BuildStepRow): BuildStep {
  return {
    id: row.id,
    userId: UserIdSchema.parse(row.user_id),
    key: row.key,
    state: z.enum(["creating", "ready"]).parse(row.state),
    templateId: row.template_id,
    imageName: row.image_name,
    imageHash: row.image_hash,
    diskMib: row.disk_mib,
    bytes: Number(row.bytes),
    usedAt: row.used_at,
  }
}
