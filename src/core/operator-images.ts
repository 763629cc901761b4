/** An operator's sharing of users' images, with its events. It works on the database, with or without a daemon. */

import { AppError } from "@bhatti/contract/errors"
import type { ImageRecord } from "../store/images.ts"
import type { Store } from "../store/store.ts"
import { isoNow, systemClock } from "./clock.ts"

/** Named users, or with an empty list everybody. */
type Shared = { owner: string; name: string; users: readonly string[] }

export class OperatorImages {
  readonly #store: Pick<Store, "images" | "users" | "events">

  constructor(store: Pick<Store, "images" | "users" | "events">) {
    this.#store = store
  }

  async share({ owner, name, users }: Shared): Promise<void> {
    const image = await this.#find(owner, name)
    await this.#store.images.share(image.id, users.length === 0 ? "everybody" : users)
    await this.#record("image.shared", image, users)
  }

  async unshare({ owner, name, users }: Shared): Promise<void> {
    const image = await this.#find(owner, name)
    await this.#store.images.unshare(image.id, users.length === 0 ? "everybody" : users)
    await this.#record("image.unshared", image, users)
  }

  async #find(owner: string, name: string): Promise<ImageRecord> {
    const user = await this.#store.users.find(owner)
    if (!user)
      throw new AppError("not_found", `no user named "${owner}"`, { subject: { kind: "user", name: owner } })
    const image = (await this.#store.images.listOf(user.id)).find(
      (one) => one.name === name || one.id === name,
    )
    if (image) return image
    throw new AppError("not_found", `${owner} has no image named "${name}"`, {
      hint: "that user's list of images has its names",
      subject: { kind: "image", name },
    })
  }

  /** A failure to record does not undo the command. */
  async #record(
    type: "image.shared" | "image.unshared",
    image: ImageRecord,
    users: readonly string[],
  ): Promise<void> {
    const record = {
      id: Bun.randomUUIDv7(),
      at: isoNow(systemClock),
      ...{ type, userId: image.userId, sandboxId: null, sandboxName: null },
      meta: { by: "operator", image: image.name, with: users.length === 0 ? "everybody" : users.join(", ") },
    }
    await this.#store.events.add([record]).catch(() => undefined)
  }
}
