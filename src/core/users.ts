/** An operator's changes to users, with their events. They work on the database, with or without a daemon. */

import type { EventType } from "@bhatti/contract/event-types"
import type { Store } from "../store/store.ts"
import type { UserLimits, UserRecord } from "../store/users.ts"
import { isoNow, systemClock } from "./clock.ts"

export class OperatorUsers {
  readonly #store: Pick<Store, "users" | "events">

  constructor(store: Pick<Store, "users" | "events">) {
    this.#store = store
  }

  async create(input: { name: string } & Partial<UserLimits>): Promise<{ user: UserRecord; key: string }> {
    const created = await this.#store.users.create(input)
    await this.#record("user.created", created.user)
    return created
  }

  list(): Promise<UserRecord[]> {
    return this.#store.users.listForOperator()
  }

  async edit(name: string, changes: Partial<UserLimits>): Promise<UserRecord> {
    const user = await this.#store.users.edit(name, changes)
    await this.#record("user.edited", user)
    return user
  }

  async rotateKey(name: string): Promise<{ user: UserRecord; key: string }> {
    const rotated = await this.#store.users.rotateKey(name)
    await this.#record("user.key_rotated", rotated.user)
    return rotated
  }

  async remove(name: string): Promise<void> {
    const user = await this.#store.users.find(name)
    await this.#store.users.remove(name)
    await this.#record("user.deleted", user)
  }

  /** A failure to record does not undo the command. */
  async #record(type: EventType, user: { id: string; name: string } | undefined): Promise<void> {
    const record = {
      id: Bun.randomUUIDv7(),
      at: isoNow(systemClock),
      type,
      userId: user?.id ?? null,
      sandboxId: null,
      sandboxName: null,
      meta: { by: "operator", user: user?.name ?? null },
    }
    await this.#store.events.add([record]).catch(() => undefined)
  }
}
