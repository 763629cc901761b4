/** From a key, or a ticket in its place, to the account that makes a request. */

import { AppError } from "@bhatti/contract/errors"
import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"

type Parts = Pick<Core, "keys" | "events">

/** `hint` says where this surface takes a key. */
export async function holderOfKey(
  { keys, events }: Parts,
  key: string | undefined,
  { hint }: { hint: string },
): Promise<KeyHolder> {
  if (key === undefined) throw new AppError("unauthenticated", "an API key is needed", { hint })
  const holder = await keys.find(key)
  if (holder) return holder
  events.refusedKey()
  throw new AppError("unauthenticated", "the API key is not valid", { hint })
}

/** Uses up the ticket. `hint` says where this surface gives another. */
export async function holderOfTicket(
  { keys, events }: Parts,
  ticket: string,
  { hint }: { hint: string },
): Promise<KeyHolder> {
  const holder = await keys.findByTicket(ticket)
  if (holder) return holder
  events.refusedKey()
  throw new AppError("unauthenticated", "the ticket is not valid", { hint })
}
