/** Directories that the database does not know are kept, and the rows of the database lie beside the disks. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { RowKeeper } from "../../src/core/kept-rows.ts"
import { reconcile } from "../../src/core/reconcile.ts"
import { KeptRow } from "../../src/store/recovery.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let app: HttpApp
beforeAll(async () => {
  app = await openHttpApp()
})
afterAll(async () => app[Symbol.asyncDispose]())

async function create(name: string): Promise<string> {
  const { body } = await app.call("POST", "/sandboxes", { name })
  return (body as { id: string }).id
}

const keptOf = (id: string) => KeptRow.parse(JSON.parse(app.host.keptTexts.get(id) ?? "null"))

test("a sandbox's row lies beside its disk, with its owner and its ports, and follows each change", async () => {
  const keeper = new RowKeeper(app.core)
  const id = await create("dev")
  await keeper.keep()
  expect(keptOf(id)).toMatchObject({
    kind: "sandbox",
    owner: { name: "alice" },
    row: { id, name: "dev" },
    ports: [],
  })
  await app.call("PATCH", "/sandboxes/dev", { name: "renamed", labels_add: { team: "a" } })
  await app.call("POST", "/sandboxes/renamed/publish", { port: 80, alias: "site" })
  await keeper.keep()
  expect(keptOf(id)).toMatchObject({
    row: { name: "renamed", spec: expect.stringContaining('"labels":{"team":"a"}') },
    ports: [{ port: 80, alias: "site" }],
    diskStamp: null,
  })
  await app.call("POST", "/sandboxes/renamed/stop")
  await keeper.keep()
  expect(keptOf(id).diskStamp).not.toBeNull()
})

test("so does a snapshot's", async () => {
  await create("source")
  const { body } = await app.call("POST", "/sandboxes/source/checkpoint", { name: "first" })
  await new RowKeeper(app.core).keep()
  const { id } = body as { id: string }
  expect(keptOf(id)).toMatchObject({ kind: "snapshot", owner: { name: "alice" }, row: { id, name: "first" } })
})

test("nothing is written while nothing changes", async () => {
  const keeper = new RowKeeper(app.core)
  await keeper.keep()
  app.host.keptTexts.clear()
  await keeper.keep()
  expect(app.host.keptTexts.size).toBe(0)
})

test("what the database does not know is set aside with the reason, and nothing of it is removed", async () => {
  app.host.directories.add("sb_00000000000000aa")
  app.host.directories.add("somebody's own")
  app.host.kept.set("snap_00000000000000aa", { hasMemory: false })
  await reconcile(app.core)
  expect([...app.host.asides.keys()].sort()).toEqual([
    "sb_00000000000000aa",
    "snap_00000000000000aa",
    "somebody's own",
  ])
  await app.core.events.flush()
  const told = await app.core.store.events.list({ userId: null, type: "unknown." }, 10)
  expect(told.map(({ type, meta }) => [type, meta["id"]]).sort()).toEqual([
    ["unknown.set_aside", "sb_00000000000000aa"],
    ["unknown.set_aside", "snap_00000000000000aa"],
    ["unknown.set_aside", "somebody's own"],
  ])
})

test("a machine that the database does not know runs on, and is told", async () => {
  app.host.directories.add("sb_00000000000000bb")
  app.host.running.set(77, { directory: "/fake/sb_00000000000000bb" })
  await reconcile(app.core)
  expect(app.host.running.has(77)).toBe(true)
  expect(app.host.asides.has("sb_00000000000000bb")).toBe(false)
  await app.core.events.flush()
  const told = await app.core.store.events.list({ userId: null, type: "unknown.running" }, 10)
  expect(told.map(({ meta }) => meta["pid"])).toEqual([77])
})
