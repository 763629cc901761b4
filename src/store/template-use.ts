/** Disk use of the templates that one account alone uses, as last measured by the daemon; it counts in the quota. */

import { UserId } from "@bhatti/contract/ids"
import { type Kysely, sql } from "kysely"
import { checkDiskQuota, diskUsedMib } from "./disk-use.ts"
import type { Schema } from "./schema.ts"
import { among, lockRows } from "./sqlite/queries.ts"
import { withUserLocked } from "./user-lock.ts"

export class TemplateUse {
  readonly #db: Kysely<Schema>

  constructor(db: Kysely<Schema>) {
    this.#db = db
  }

  /** Refuses more than the owner's quota. */
  async check(owner: string, neededMib: number): Promise<void> {
    await withUserLocked(this.#db, UserId.parse(owner), (db, user) => checkDiskQuota(db, user, neededMib))
  }

  /** Counts a template in the making for its owner, unless that is more than the owner's quota. */
  async take(owner: string, id: string, mib: number): Promise<void> {
    await withUserLocked(this.#db, UserId.parse(owner), async (db, user) => {
      await db.deleteFrom("template_use").where("id", "=", id).execute()
      await checkDiskQuota(db, user, mib)
      await db.insertInto("template_use").values({ id, user_id: owner, used_mib: mib }).execute()
    })
  }

  /** Replaces the measures of this host's templates; those of users who are gone count for nobody. */
  async setOnHost(measured: { id: string; owner: string; mib: number }[]): Promise<void> {
    await this.#db.transaction().execute(async (db) => {
      await lockRows(db)
      await db.deleteFrom("template_use").execute()
      const owners = measured.map(({ owner }) => owner)
      const users = await db.selectFrom("users").select("id").where("id", "in", among(owners)).execute()
      const known = new Set(users.map(({ id }) => id))
      const rows = measured
        .filter(({ owner }) => known.has(owner))
        .map(({ id, owner, mib }) => ({ id, user_id: owner, used_mib: mib }))
      if (rows.length > 0) await db.insertInto("template_use").values(rows).execute()
    })
  }

  /** Returns those of the owners that use more than their quota. */
  async overQuota(owners: Iterable<string>): Promise<string[]> {
    const rows = await this.#db
      .selectFrom("users")
      .select("id")
      .where("id", "in", among(owners))
      .where("max_disk_mib", ">", 0)
      .where(sql<boolean>`${diskUsedMib(sql.ref("users.id"))} >= max_disk_mib`)
      .execute()
    return rows.map(({ id }) => id)
  }
}
