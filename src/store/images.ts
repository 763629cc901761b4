/**
 * Users' images in the store. A row exists once the image's disk is complete, so a half image is never listed; images
 * of the host itself have no row. Rows of different users may lead to the same disk.
 */

import { AppError } from "@bhatti/contract/errors"
import { ImageId, UserId } from "@bhatti/contract/ids"
import { ImageConfig } from "@bhatti/contract/image-config"
import { limits } from "@bhatti/contract/limits"
import { type Kysely, sql } from "kysely"
import { z } from "zod"
import { randomHex } from "../lib/random-hex.ts"
import { checkDiskQuota } from "./disk-use.ts"
import type { ImageRow, Schema } from "./schema.ts"
import { refusedBy } from "./sqlite/constraints.ts"
import { insertionOrder, specImageId } from "./sqlite/queries.ts"
import { releaseTask } from "./tasks.ts"
import { countOf, withUserLocked } from "./user-lock.ts"

export type ImageRecord = {
  id: ImageId
  userId: UserId
  name: string
  /** As it was asked for, with the registry; null: imported. */
  reference: string | null
  /** Digest of the index or manifest that the reference named; null: imported. */
  indexDigest: string | null
  manifestDigest: string | null
  /** Such as `linux/amd64`. */
  platform: string
  /** The image's name among the host's files, and the hash of its disk. */
  diskName: string
  diskHash: string
  diskMib: number
  bytes: number
  config: ImageConfig
  /** While its template is being made it is `preparing`; creates work already. */
  state: "preparing" | "ready"
  isShared: boolean
  createdAt: string
}

export type NewImage = Omit<ImageRecord, "id" | "userId" | "state" | "isShared" | "createdAt">

const mebibyte = 1024 * 1024

export class Images {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Adds an image, or gives the image of that name this content; the reservation of its task ends with that. */
  async put(userId: UserId, image: NewImage, options: { taskId?: string } = {}): Promise<ImageRecord> {
    return await withUserLocked(this.#db, userId, async (db, user) => {
      if (options.taskId !== undefined) await releaseTask(db, options.taskId)
      const before = await db
        .selectFrom("images")
        .selectAll()
        .where("user_id", "=", userId)
        .where("name", "=", image.name)
        .executeTakeFirst()
      await checkDiskQuota(db, user, mibOf(image.bytes - Number(before?.bytes ?? 0)))
      if (before) {
        const content = contentOf(image)
        await db.updateTable("images").set(content).where("id", "=", before.id).execute()
        return toRecord({ ...before, ...content })
      }
      await refuseTooMany(db, user)
      return await insert(db, userId, image, 0)
    })
  }

  /** Gives an image another name too; both stay independent. */
  async copy(userId: UserId, image: ImageRecord, name: string): Promise<ImageRecord> {
    return await withUserLocked(this.#db, userId, async (db, user) => {
      // Without its row the disk may be gone too.
      const row = await db.selectFrom("images").selectAll().where("id", "=", image.id).executeTakeFirst()
      if (!row)
        throw new AppError("not_found", `image "${image.name}" was deleted meanwhile`, {
          subject: { kind: "image", name: image.name },
        })
      const original = toRecord(row)
      await refuseTooMany(db, user)
      await checkDiskQuota(db, user, mibOf(original.bytes))
      return await insert(db, userId, { ...original, name }, 0)
    })
  }

  /** When a daemon starts: a template that was being made is made by the first create. */
  async setAllReadyOnHost(): Promise<void> {
    await this.#db.updateTable("images").set({ state: "ready" }).where("state", "=", "preparing").execute()
  }

  async setReady(id: ImageId): Promise<void> {
    await this.#db.updateTable("images").set({ state: "ready" }).where("id", "=", id).execute()
  }

  /** Finds by id first, then by name: the account's own, then those shared with it, the oldest first. */
  async findUsable(userId: UserId, nameOrId: string): Promise<ImageRecord | undefined> {
    const usable = await this.#usable(userId)
      .where((eb) => eb.or([eb("id", "=", nameOrId), eb("name", "=", nameOrId)]))
      .orderBy(insertionOrder)
      .execute()
    const byName = usable.filter(({ name }) => name === nameOrId)
    const row =
      usable.find(({ id }) => id === nameOrId) ??
      byName.find(({ user_id }) => user_id === userId) ??
      byName[0]
    return row && toRecord(row)
  }

  async findOwn(userId: UserId, nameOrId: string): Promise<ImageRecord | undefined> {
    const found = await this.findUsable(userId, nameOrId)
    return found?.userId === userId ? found : undefined
  }

  /** The account's own images and those shared with it, by name. */
  async listUsable(userId: UserId): Promise<ImageRecord[]> {
    return (await this.#usable(userId).orderBy("name").orderBy(insertionOrder).execute()).map(toRecord)
  }

  async listOf(userId: UserId): Promise<ImageRecord[]> {
    const rows = await this.#db
      .selectFrom("images")
      .selectAll()
      .where("user_id", "=", userId)
      .orderBy("name")
      .execute()
    return rows.map(toRecord)
  }

  async listOnHost(): Promise<ImageRecord[]> {
    return (await this.#db.selectFrom("images").selectAll().orderBy("name").execute()).map(toRecord)
  }

  /** Removes the image unless a sandbox or a named snapshot was made from it; returns whether it did. */
  async remove(id: ImageId): Promise<boolean> {
    const removed = await this.#db
      .deleteFrom("images")
      .where("id", "=", id)
      .where(sql<boolean>`not exists (select 1 from sandboxes where ${specImageId("sandboxes")} = images.id)`)
      .where(sql<boolean>`not exists (select 1 from snapshots where ${specImageId("snapshots")} = images.id)`)
      .executeTakeFirst()
    return removed.numDeletedRows > 0n
  }

  /** Sandboxes and named snapshots that were made from the image, whose ever they are. */
  async dependants(id: ImageId): Promise<{ kind: "sandbox" | "snapshot"; userId: string; name: string }[]> {
    const found = []
    for (const [kind, table] of [
      ["sandbox", "sandboxes"],
      ["snapshot", "snapshots"],
    ] as const) {
      const rows = await this.#db
        .selectFrom(table)
        .select(["name", "user_id"])
        .where(specImageId(table), "=", id)
        .execute()
      found.push(...rows.map((row) => ({ kind, userId: row.user_id ?? "", name: row.name })))
    }
    return found
  }

  /** Shares it with every user, or with those of the given names; throws if one does not exist. */
  async share(id: ImageId, withWhom: "everybody" | readonly string[]): Promise<void> {
    await this.#db.transaction().execute(async (db) => {
      if (withWhom === "everybody") {
        await db.updateTable("images").set({ is_shared: 1 }).where("id", "=", id).execute()
        return
      }
      for (const name of withWhom) {
        const user = await db.selectFrom("users").select("id").where("name", "=", name).executeTakeFirst()
        if (!user)
          throw new AppError("not_found", `no user named "${name}"`, { subject: { kind: "user", name } })
        await db
          .insertInto("image_shares")
          .values({ image_id: id, user_id: user.id })
          .onConflict((on) => on.doNothing())
          .execute()
      }
    })
  }

  /** Sandboxes that others have made from it stay. */
  async unshare(id: ImageId, withWhom: "everybody" | readonly string[]): Promise<void> {
    await this.#db.transaction().execute(async (db) => {
      if (withWhom === "everybody") {
        await db.updateTable("images").set({ is_shared: 0 }).where("id", "=", id).execute()
        await db.deleteFrom("image_shares").where("image_id", "=", id).execute()
        return
      }
      await db
        .deleteFrom("image_shares")
        .where("image_id", "=", id)
        .where("user_id", "in", (eb) =>
          eb
            .selectFrom("users")
            .select("id")
            .where("name", "in", [...withWhom]),
        )
        .execute()
    })
  }

  #usable(userId: UserId) {
    return this.#db
      .selectFrom("images")
      .selectAll()
      .where((eb) =>
        eb.or([
          eb("user_id", "=", userId),
          eb("is_shared", "=", 1),
          eb(
            "id",
            "in",
            eb.selectFrom("image_shares").select("image_id").where("image_shares.user_id", "=", userId),
          ),
        ]),
      )
  }
}

async function insert(
  db: Kysely<Schema>,
  userId: UserId,
  image: NewImage,
  isShared: number,
): Promise<ImageRecord> {
  const row: ImageRow = {
    id: `img_${randomHex(8)}`,
    user_id: userId,
    name: image.name,
    ...contentOf(image),
    is_shared: isShared,
  }
  const taken = new AppError("conflict", `an image named "${image.name}" exists already`, {
    hint: "choose another name, or delete that one",
    subject: { kind: "image", name: image.name },
  })
  await refusedBy("images_user_name", db.insertInto("images").values(row).execute(), () => taken)
  return toRecord(row)
}

async function refuseTooMany(db: Kysely<Schema>, user: { id: string }): Promise<void> {
  if ((await countOf(db, "images", user)) < limits.imagesMax) return
  throw new AppError("limit_exceeded", `you have ${limits.imagesMax} images already`, {
    hint: "delete one of them",
    subject: { kind: "image" },
  })
}

function contentOf(image: NewImage) {
  return {
    reference: image.reference,
    index_digest: image.indexDigest,
    manifest_digest: image.manifestDigest,
    platform: image.platform,
    disk_name: image.diskName,
    disk_hash: image.diskHash,
    disk_mib: image.diskMib,
    bytes: image.bytes,
    config: JSON.stringify(ImageConfig.parse(image.config)),
    state: "preparing",
    created_at: new Date().toISOString(),
  }
}

function mibOf(bytes: number): number {
  return Math.max(0, Math.ceil(bytes / mebibyte))
}

function toRecord(row: ImageRow): ImageRecord {
  return {
    id: ImageId.parse(row.id),
    userId: UserId.parse(row.user_id),
    name: row.name,
    reference: row.reference,
    indexDigest: row.index_digest,
    manifestDigest: row.manifest_digest,
    platform: row.platform,
    diskName: row.disk_name,
    diskHash: row.disk_hash,
    diskMib: row.disk_mib,
    bytes: Number(row.bytes),
    config: ImageConfig.parse(JSON.parse(row.config)),
    state: z.enum(["preparing", "ready"]).parse(row.state),
    isShared: row.is_shared === 1,
    createdAt: row.created_at,
  }
}
