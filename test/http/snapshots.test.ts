/**
 * Named snapshots and copies through the HTTP interface, on a fake host: what is kept, what is refused, what a crash
 * leaves.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Event } from "@bhatti/contract/event"
import { limits } from "@bhatti/contract/limits"
import { Sandbox } from "@bhatti/contract/sandbox"
import { Snapshot } from "@bhatti/contract/snapshot"
import { ErrorBody } from "@bhatti/contract/system"
import { reconcile } from "../../src/core/reconcile.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  const body = { name: "dev", env: { KEPT: "yes" }, labels: { team: "web" }, warm_after: 60 }
  expect((await own.call("POST", "/sandboxes", body)).status).toBe(201)
})
afterEach(() => own[Symbol.asyncDispose]())

const checkpoint = (name: string, sandbox = "dev") =>
  own.call("POST", `/sandboxes/${sandbox}/checkpoint`, { name })
const nothingHalf = async () => {
  expect([...own.host.drafts]).toEqual([])
  expect(own.host.kept.size).toBe((await own.core.store.snapshots.listOnHost()).length)
}

test("one is made of a running sandbox, listed, shown by name and id, and deleted", async () => {
  const made = await checkpoint("before")
  expect(made.status).toBe(201)
  const snapshot = Snapshot.parse(made.body)
  expect(snapshot).toMatchObject({
    name: "before",
    status: "ready",
    source_sandbox: "dev",
    has_memory: true,
    cpus: 1,
    memory_mb: 512,
    image: "workspace",
  })
  expect((await own.call("GET", "/snapshots")).body).toEqual([snapshot])
  expect((await own.call("GET", "/snapshots/before")).body).toEqual(snapshot)
  expect((await own.call("GET", `/snapshots/${snapshot.id}`)).body).toEqual(snapshot)
  expect((await own.call("GET", "/sandboxes/dev")).body).toMatchObject({ thermal: "hot" })
  expect((await own.call("DELETE", "/snapshots/before")).body).toEqual({ status: "deleted" })
  expect((await own.call("GET", "/snapshots")).body).toEqual([])
  expect((await own.call("DELETE", "/snapshots/before")).status).toBe(404)
  await nothingHalf()
})

test("a description is set, changed and removed, and copies and snapshots inherit it", async () => {
  const described = async (method: string, path: string, body: unknown) =>
    Sandbox.parse((await own.call(method, path, body)).body).description
  expect(await described("PATCH", "/sandboxes/dev", { keep_hot: false })).toBeNull()
  expect(await described("PATCH", "/sandboxes/dev", { description: "Café, staging" })).toBe("Café, staging")
  expect(await described("POST", "/sandboxes", { name: "copy", from: "dev" })).toBe("Café, staging")
  expect(await described("POST", "/sandboxes", { name: "own", from: "dev", description: "x" })).toBe("x")
  await checkpoint("kept")
  expect(await described("POST", "/snapshots/kept/resume", { name: "again" })).toBe("Café, staging")
  expect(await described("PATCH", "/sandboxes/dev", { description: null })).toBeNull()
  for (const description of ["", "two\nlines", "x".repeat(501), 7])
    expect((await own.call("POST", "/sandboxes", { name: "bad", description })).status).toBe(400)
  await own.core.events.flush()
  const events = (await own.call("GET", "/events?type=sandbox.updated")).body as Event[]
  expect(events.map(({ meta }) => meta["changed"])).toEqual(["keep_hot", "description", "description"])
})

test("a resumed one is a sandbox with an identity of its own that takes over all but the secrets", async () => {
  await own.call("POST", "/secrets", { name: "TOKEN", value: "canary" })
  await own.call("POST", "/sandboxes", { name: "secretive", secrets: ["TOKEN"], env: { A: "1" } })
  await checkpoint("one", "secretive")
  await checkpoint("two")
  const plain = await own.call("POST", "/snapshots/one/resume", {})
  expect(plain.status).toBe(201)
  expect(own.host.identities.at(-1)?.env).toEqual({ A: "1" })
  expect(Sandbox.parse(plain.body).name).not.toBe("secretive")
  await own.call("POST", "/snapshots/one/resume", { name: "again", secrets: ["TOKEN"] })
  expect(own.host.identities.at(-1)).toMatchObject({
    hostname: "again",
    env: { A: "1", TOKEN: "canary" },
  })
  const copy = await own.call("POST", "/snapshots/two/resume", { name: "copy" })
  expect(copy.body).toMatchObject({
    name: "copy",
    thermal: "hot",
    status_reason: null,
    labels: { team: "web" },
    warm_after: 60,
  })
  const machineIds = own.host.identities.map(({ machineId }) => machineId)
  expect(new Set(machineIds).size).toBe(machineIds.length)
})

test("of ten at once with one name one is made, the others are conflicts", async () => {
  const all = await Promise.all(Array.from({ length: 10 }, () => checkpoint("same")))
  expect(all.map(({ status }) => status).sort()).toEqual([201, ...Array(9).fill(409)])
  await nothingHalf()
})

test("the limit holds for many at once, and deleting one makes room", async () => {
  const many = Array.from({ length: limits.snapshotsMax + 5 }, (_, index) => checkpoint(`s${index}`))
  const statuses = (await Promise.all(many)).map(({ status }) => status)
  expect(statuses.filter((status) => status === 201)).toHaveLength(limits.snapshotsMax)
  expect(statuses.filter((status) => status === 429)).toHaveLength(5)
  const [first] = (await own.call("GET", "/snapshots")).body as Snapshot[]
  await own.call("DELETE", `/snapshots/${first?.name}`)
  expect((await checkpoint("one-more")).status).toBe(201)
})

test("another user's snapshots do not exist", async () => {
  await checkpoint("mine")
  const { key: bob } = await own.core.store.users.create({ name: "bob" })
  const { id } = (await own.call("GET", "/snapshots/mine")).body as Snapshot
  for (const name of ["mine", id]) {
    expect((await own.call("GET", `/snapshots/${name}`, undefined, bob)).status).toBe(404)
    expect((await own.call("DELETE", `/snapshots/${name}`, undefined, bob)).status).toBe(404)
    expect((await own.call("POST", `/snapshots/${name}/resume`, {}, bob)).status).toBe(404)
  }
  expect((await own.call("GET", "/snapshots", undefined, bob)).body).toEqual([])
})

test("a stopped sandbox is copied without being woken", async () => {
  await own.call("POST", "/sandboxes/dev/stop")
  const { body } = await checkpoint("cold")
  expect(body).toMatchObject({ has_memory: true })
  expect((await own.call("GET", "/sandboxes/dev")).body).toMatchObject({ thermal: "cold" })
  expect(own.host.running.size).toBe(0)
  expect((await own.call("POST", "/snapshots/cold/resume", {})).body).toMatchObject({
    thermal: "hot",
    status_reason: null,
  })
})

test("one that does not fit any more boots from its disk, and the answer, why and the events say so", async () => {
  await checkpoint("old")
  own.host.misfit = "its memory snapshot was made by another QEMU or bhatti, or on another CPU"
  const { status, body } = await own.call("POST", "/snapshots/old/resume", { name: "revived" })
  expect(status).toBe(201)
  expect(body).toMatchObject({ thermal: "hot", status_reason: own.host.misfit })
  expect((await own.call("GET", "/sandboxes/revived/why")).body).toMatchObject({
    started_from_disk: own.host.misfit,
  })
  const events = await own.call("GET", "/events?type=snapshot.resumed")
  expect(events.body).toMatchObject([{ meta: { how: "disk", reason: own.host.misfit } }])
  own.host.misfit = undefined
  await own.call("POST", "/sandboxes/revived/stop")
  expect((await own.call("POST", "/sandboxes/revived/start")).body).toMatchObject({ status_reason: null })
})

test.each(["draft", "copy ahead", "pause", "save", "capture", "commit"])(
  "one that fails at %s leaves nothing, and the sandbox goes on",
  async (step) => {
    own.host.failAt = step
    const answer = await checkpoint("broken")
    expect(answer.status).toBe(503)
    expect(ErrorBody.parse(answer.body).code).toBe("unavailable")
    own.host.failAt = undefined
    expect(await own.core.store.snapshots.listOnHost()).toEqual([])
    await nothingHalf()
    expect((await own.call("GET", "/sandboxes/dev")).body).toMatchObject({ thermal: "hot" })
    expect((await checkpoint("broken")).status).toBe(201)
  },
)

test.each(["place", "restore", "personalise"])(
  "a resume that fails at %s leaves no sandbox and keeps the snapshot",
  async (step) => {
    await checkpoint("kept")
    own.host.failAt = step
    expect((await own.call("POST", "/snapshots/kept/resume", { name: "copy" })).status).toBe(503)
    own.host.failAt = undefined
    expect((await own.core.store.sandboxes.listOnHost()).map(({ name }) => name)).toEqual(["dev"])
    expect(own.host.running.size).toBe(1)
    expect((await own.call("POST", "/snapshots/kept/resume", { name: "copy" })).status).toBe(201)
  },
)

test("a nearly full host refuses before anything is written", async () => {
  own.host.freeMibNow = 1030
  const answer = await checkpoint("big")
  expect(answer.status).toBe(503)
  expect(ErrorBody.parse(answer.body).message).toContain("1030 MB are free")
  expect(await own.core.store.snapshots.listOnHost()).toEqual([])
})

test("limits of the user hold for what is made of a snapshot", async () => {
  await checkpoint("large")
  await own.core.store.users.edit("alice", { maxMemoryMib: 256 })
  expect((await own.call("POST", "/snapshots/large/resume", {})).status).toBe(400)
  await own.core.store.users.edit("alice", { maxMemoryMib: 4096, maxSandboxes: 1 })
  expect((await own.call("POST", "/snapshots/large/resume", {})).status).toBe(429)
})

test("sandboxes of a deleted snapshot live on, and a user with snapshots is not deleted", async () => {
  await checkpoint("parent")
  await own.call("POST", "/snapshots/parent/resume", { name: "child" })
  await own.call("DELETE", "/sandboxes/dev")
  await own.call("DELETE", "/sandboxes/child")
  await expect(own.core.store.users.remove("alice")).rejects.toMatchObject({ code: "conflict" })
  await own.call("POST", "/snapshots/parent/resume", { name: "child" })
  await own.call("DELETE", "/snapshots/parent")
  const { body } = await own.call("POST", "/sandboxes/child/exec", { cmd: ["echo", "alive"] })
  expect(body).toMatchObject({ stdout: "alive\n" })
})

test("what a crash left of snapshots is removed at the next start, and whole ones stay", async () => {
  await checkpoint("whole")
  const [whole] = await own.core.store.snapshots.listOnHost()
  const { id: userId } = (await own.core.store.users.findByKey(own.key)) ?? { id: undefined }
  const account = await own.core.store.users.findByKey(own.key)
  const source = userId && (await own.core.store.sandboxes.find({ id: userId }, "dev"))
  if (!account || !source || !whole) throw new Error("no account")
  // Killed while it was written; after it was published; while it was deleted; and a directory without a row.
  const halfWritten = await own.core.store.snapshots.add(account, "half", source, { neededMib: 1 })
  await own.host.snapshots.begin(halfWritten.id)
  const published = await own.core.store.snapshots.add(account, "published", source, { neededMib: 1 })
  own.host.kept.set(published.id, { hasMemory: true })
  const deleting = await own.core.store.snapshots.add(account, "deleting", source, { neededMib: 1 })
  own.host.kept.set(deleting.id, { hasMemory: true })
  await own.core.store.snapshots.setDeleting(deleting.id)
  own.host.kept.set("snap_0000000000000000", { hasMemory: true })
  await reconcile(own.core)
  expect((await own.core.store.snapshots.listOnHost()).map(({ name }) => name)).toEqual(["whole"])
  expect([...own.host.kept.keys()]).toEqual([whole.id])
  expect([...own.host.drafts]).toEqual([])
})

test("several copies come from one pause, each with its own identity, named after the first", async () => {
  const { status, body } = await own.call("POST", "/sandboxes/batch", {
    from: "dev",
    name: "copy",
    count: 5,
  })
  expect(status).toBe(201)
  const sandboxes = body as Sandbox[]
  expect(sandboxes.map(({ name }) => name)).toEqual(["copy-1", "copy-2", "copy-3", "copy-4", "copy-5"])
  expect(sandboxes.every(({ thermal }) => thermal === "hot")).toBe(true)
  const [, ...identities] = own.host.identities.map(({ machineId }) => machineId)
  expect(new Set(identities).size).toBe(6)
  expect(own.host.pauses).toBe(1)
  expect(own.host.running.size).toBe(6)
  expect([...own.host.drafts]).toEqual([])
})

test("what was deleted is given back before a copy, and a guest that cannot is copied all the same", async () => {
  expect((await own.call("POST", "/sandboxes", { name: "copy", from: "dev" })).status).toBe(201)
  expect(own.host.trims).toBe(1)
  own.host.failAt = "trim"
  expect((await own.call("POST", "/sandboxes", { name: "other", from: "dev" })).status).toBe(201)
  expect((await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })).status).toBe(201)
})

test("several new ones are made, and without a name each gets its own", async () => {
  const { status, body } = await own.call("POST", "/sandboxes/batch", { count: 6 })
  expect(status).toBe(201)
  expect(new Set((body as Sandbox[]).map(({ name }) => name)).size).toBe(6)
})

test.each([{ from: "dev" }, {}])("several are made all or none (%o)", async (what) => {
  await own.core.store.users.edit("alice", { maxSandboxes: 4 })
  const refused = await own.call("POST", "/sandboxes/batch", { ...what, name: "many", count: 5 })
  expect(refused.status).toBe(429)
  await own.core.store.users.edit("alice", { maxSandboxes: 40 })
  await own.call("POST", "/sandboxes", { name: "many-3" })
  const taken = await own.call("POST", "/sandboxes/batch", { ...what, name: "many", count: 3 })
  expect(taken.status).toBe(409)
  expect((await own.core.store.sandboxes.listOnHost()).map(({ name }) => name).sort()).toEqual([
    "dev",
    "many-3",
  ])
  expect(own.host.running.size).toBe(2)
  expect([...own.host.drafts]).toEqual([])
})

test.each([
  ["no count", { from: "dev" }],
  ["none", { count: 0 }],
  ["too many", { count: limits.createCountMax + 1 }],
  ["a name that gets too long", { count: 10, name: "a".repeat(62) }],
])("%s is refused as invalid", async (_what, body) => {
  expect((await own.call("POST", "/sandboxes/batch", body)).status).toBe(400)
})
