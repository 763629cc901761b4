/** Tickets across processes, and their end by the database's clock. */

import { Database } from "bun:sqlite"
import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { openStore, type Store } from "./store.ts"
import { type Account, hashKey } from "./users.ts"

let dataDir: string
let store: Store
let account: Account
let keyHash: string
beforeEach(async () => {
  dataDir = mkdtempSync("/tmp/bhatti-tickets-")
  store = await openStore({ dataDir })
  const { key } = await store.users.create({ name: "alice" })
  keyHash = hashKey(key)
  account = (await store.users.findByKeyHash(keyHash)) as Account
})
afterEach(async () => {
  await store.close()
  rmSync(dataDir, { recursive: true })
})

/** As if so many seconds had passed since each was issued. */
function letPass(seconds: number): void {
  using database = new Database(join(dataDir, "bhatti.db"))
  database.run("update socket_tickets set expires_at = expires_at - ?", [seconds])
}

test("a ticket is used up by one of many who try at once, in another process too", async () => {
  const other = await openStore({ dataDir })
  try {
    const ticket = await store.socketTickets.issue(account.id, keyHash)
    const tries = Array.from({ length: 10 }, (_, index) => (index % 2 ? store : other).socketTickets)
    const found = await Promise.all(tries.map((tickets) => tickets.redeem(ticket)))
    expect(found.filter((one) => one !== undefined)).toEqual([keyHash])
  } finally {
    await other.close()
  }
})

test("a ticket expires by the database's clock", async () => {
  const [early, late] = [
    await store.socketTickets.issue(account.id, keyHash),
    await store.socketTickets.issue(account.id, keyHash),
  ]
  letPass(limits.socketTicketSec - 5)
  expect(await store.socketTickets.redeem(early)).toBe(keyHash)
  letPass(5)
  expect(await store.socketTickets.redeem(late)).toBeUndefined()
})

test("an unknown ticket is refused without a write, which others would wait for", async () => {
  using database = new Database(join(dataDir, "bhatti.db"))
  database.run("begin immediate")
  expect(await store.socketTickets.redeem("0".repeat(64))).toBeUndefined()
  database.run("rollback")
})

test("a user has only so many unused tickets, also by many requests at once, and more when they expire", async () => {
  const issue = () => store.socketTickets.issue(account.id, keyHash)
  const issued = await Promise.allSettled(Array.from({ length: limits.socketTicketsMax + 5 }, issue))
  expect(issued.filter(({ status }) => status === "fulfilled")).toHaveLength(limits.socketTicketsMax)
  await expect(issue()).rejects.toMatchObject({ code: "limit_exceeded", retryable: true })
  const { key } = await store.users.create({ name: "bob" })
  const bob = await store.users.findByKey(key)
  expect(await store.socketTickets.issue(bob?.id ?? account.id, hashKey(key))).toHaveLength(64)
  letPass(limits.socketTicketSec)
  expect(await issue()).toHaveLength(64)
})

test("a key that was replaced gets no ticket, and a deleted user's tickets are gone", async () => {
  const ticket = await store.socketTickets.issue(account.id, keyHash)
  await store.users.rotateKey("alice")
  await expect(store.socketTickets.issue(account.id, keyHash)).rejects.toMatchObject({
    code: "unauthenticated",
  })
  await store.users.remove("alice")
  expect(await store.socketTickets.redeem(ticket)).toBeUndefined()
})

test("a ticket changes nothing that a daily copy, a mark or the records beside the disks would have to follow", async () => {
  const { counter } = await store.installation()
  const ticket = await store.socketTickets.issue(account.id, keyHash)
  await store.socketTickets.redeem(ticket)
  expect((await store.installation()).counter).toBe(counter)
})
