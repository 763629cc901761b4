/** Pages of a list: the token of the next one names the last item of this one, so that new items move nothing. */

import { AppError } from "@bhatti/contract/errors"

type Item = { id: string; createdAt: string }

/** `items` are sorted by their times. The token is undefined if there is nothing more. */
export function pageOf<T extends Item>(
  items: readonly T[],
  { limit, nextToken, order }: { limit: number; nextToken?: string | undefined; order: "asc" | "desc" },
): { page: T[]; nextToken: string | undefined } {
  const sign = order === "asc" ? 1 : -1
  const sorted = [...items].sort((one, other) => sign * compare(one, other))
  const last = nextToken === undefined ? undefined : readToken(nextToken)
  const rest = last ? sorted.filter((one) => sign * compare(one, last) > 0) : sorted
  const page = rest.slice(0, limit)
  const end = page.at(-1)
  return { page, nextToken: end && rest.length > limit ? tokenOf(end) : undefined }
}

function compare(one: Item, other: Item): number {
  const [a, b] = [`${one.createdAt} ${one.id}`, `${other.createdAt} ${other.id}`]
  return a < b ? -1 : a > b ? 1 : 0
}

function tokenOf({ createdAt, id }: Item): string {
  return Buffer.from(`${createdAt} ${id}`).toString("base64url")
}

function readToken(token: string): Item {
  const [createdAt, id] = Buffer.from(token, "base64url").toString().split(" ")
  if (createdAt === undefined || id === undefined)
    throw new AppError("invalid", "the page token is not valid")
  return { createdAt, id }
}
