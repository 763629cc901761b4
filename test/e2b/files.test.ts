/** Files of e2b's SDKs on a fake host: contents, entries, watches, and the errors as the SDKs' own classes. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { randomBytes } from "node:crypto"
import { CreatedKey } from "@bhatti/contract/key"
import * as newest from "e2b"
import { e2bSdks } from "../support/e2b-sdks.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let apiKey: string
beforeEach(async () => {
  own = await openHttpApp({ e2b: true })
  const can = ["read", "exec", "files", "create", "destroy"]
  apiKey = CreatedKey.parse((await own.call("POST", "/keys", { can, name: "agent" })).body).key
})
afterEach(() => own[Symbol.asyncDispose]())

const options = () => ({ apiKey: apiKey.replace("bht_", "e2b_"), apiUrl: own.url, sandboxUrl: own.url })
const failure = (work: Promise<unknown>) => work.then(() => undefined).catch((error: unknown) => error)

describe.each(e2bSdks)("e2b %s", (_version, e2b) => {
  test("writes a file and reads it as text, bytes, blob and stream", async () => {
    const { files } = await e2b.Sandbox.create(options())
    const written = await files.write("folder/ä 1.txt", "héllo")
    expect(written).toMatchObject({ path: "/workspace/folder/ä 1.txt", name: "ä 1.txt", type: "file" })
    expect(await files.read("folder/ä 1.txt")).toBe("héllo")
    expect(await files.read("/workspace/folder/ä 1.txt", { format: "bytes" })).toEqual(
      new TextEncoder().encode("héllo"),
    )
    expect(await (await files.read("folder/ä 1.txt", { format: "blob" })).text()).toBe("héllo")
    const stream = await files.read("folder/ä 1.txt", { format: "stream" })
    expect(await new Response(stream).text()).toBe("héllo")
    await files.write("empty", "")
    expect(await files.read("empty")).toBe("")
    expect(await files.read("empty", { format: "bytes" })).toEqual(new Uint8Array())
    const large = new Uint8Array(3_000_000).map((_, at) => at % 251)
    await files.write("/tmp/large", large.buffer)
    expect(await files.read("/tmp/large", { format: "bytes" })).toEqual(large)
  })

  test("writes several files at once, each below its own path", async () => {
    const { files } = await e2b.Sandbox.create(options())
    const written = await files.write([
      { path: 'one "quoted".txt', data: "1" },
      { path: "/tmp/../tmp/b/two.txt", data: new Blob(["2"]) },
      { path: "/tmp/three", data: new TextEncoder().encode("3").buffer },
    ])
    expect(written.map(({ path }) => path)).toEqual([
      '/workspace/one "quoted".txt',
      "/tmp/b/two.txt",
      "/tmp/three",
    ])
    const texts = await Promise.all(written.map(({ path }) => files.read(path)))
    expect(texts).toEqual(["1", "2", "3"])
  })

  test("makes directories, lists them to a depth, renames, tells and removes", async () => {
    const { files } = await e2b.Sandbox.create(options())
    expect(await files.makeDir("a/b")).toBe(true)
    expect(await files.makeDir("a/b")).toBe(false)
    await files.write("a/b/deep", "x")
    await files.write("a/file", "12345")
    const pathsOf = async (depth?: number) =>
      (await files.list("a", depth === undefined ? {} : { depth })).map(({ path, type }) => `${type} ${path}`)
    expect(await pathsOf()).toEqual(["dir /workspace/a/b", "file /workspace/a/file"])
    expect(await pathsOf(2)).toEqual([
      "dir /workspace/a/b",
      "file /workspace/a/b/deep",
      "file /workspace/a/file",
    ])
    expect(await files.exists("a/file")).toBe(true)
    expect(await files.getInfo("a/file")).toMatchObject({
      ...{ name: "file", type: "file", path: "/workspace/a/file", size: 5, mode: 0o644 },
      ...{ permissions: "-rw-r--r--", owner: "lohar", modifiedTime: new Date(0) },
    })
    expect(await files.rename("a/file", "c/moved")).toMatchObject({
      path: "/workspace/c/moved",
      type: "file",
    })
    expect(await files.exists("a/file")).toBe(false)
    await files.remove("a")
    expect(await files.exists("a/b/deep")).toBe(false)
    await files.remove("a")
  })

  test("errors are the SDK's own classes", async () => {
    const { files } = await e2b.Sandbox.create(options())
    await files.write("file", "x")
    await files.makeDir("folder")
    expect(await failure(files.read("missing"))).toBeInstanceOf(e2b.NotFoundError)
    expect(await failure(files.getInfo("missing"))).toBeInstanceOf(e2b.NotFoundError)
    expect(await failure(files.list("missing"))).toBeInstanceOf(e2b.NotFoundError)
    expect(await failure(files.rename("missing", "other"))).toBeInstanceOf(e2b.NotFoundError)
    expect(await failure(files.watchDir("missing", () => undefined))).toBeInstanceOf(e2b.NotFoundError)
    expect(await failure(files.list("file"))).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await failure(files.makeDir("file"))).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await failure(files.read("folder"))).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await failure(files.write("folder", "x"))).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await failure(files.read("~else/x"))).toBeInstanceOf(e2b.InvalidArgumentError)
    expect(await failure(files.rename("file", "folder"))).toBeInstanceOf(e2b.SandboxError)
    const user = "nobody-here"
    expect(await failure(files.read("file", { user }))).toBeInstanceOf(e2b.AuthenticationError)
    expect(await failure(files.write("file", "x", { user }))).toBeInstanceOf(e2b.AuthenticationError)
    expect(await failure(files.getInfo("file", { user }))).toBeInstanceOf(e2b.AuthenticationError)
    expect(await files.read("file", { user: "root" })).toBe("x")
  })

  test("a watch tells what happens in a directory, until it is stopped", async () => {
    const { files } = await e2b.Sandbox.create(options())
    await files.makeDir("seen")
    const told: string[] = []
    const handle = await files.watchDir("seen", ({ type, name }) => void told.push(`${type} ${name}`), {
      ...{ recursive: true, timeoutMs: 0 },
    })
    const [watch] = own.host.watches()
    expect(watch).toMatchObject({ path: "/workspace/seen", recursive: true })
    watch?.tell({ type: "create", path: "a" })
    watch?.tell({ type: "write", path: "a" })
    watch?.tell({ type: "rename", path: "a", to: "b" })
    watch?.tell({ type: "chmod", path: "b" })
    watch?.tell({ type: "remove", path: "b" })
    await until("all are told", () => told.length === 6)
    expect(told).toEqual(["create a", "write a", "rename a", "create b", "chmod b", "remove b"])
    await handle.stop()
    await until("the guest's watch is gone", () => own.host.watches().length === 0)
  })

  test("a watch ends with its time limit, and with events that were lost", async () => {
    const { files } = await e2b.Sandbox.create(options())
    const ends: unknown[] = []
    const onExit = (error?: Error) => void ends.push(error)
    await files.watchDir("/tmp", () => undefined, { timeoutMs: 300, onExit })
    await until("it ends", () => ends.length === 1)
    expect(ends[0]).toBeInstanceOf(e2b.TimeoutError)
    await until("the first is gone", () => own.host.watches().length === 0)
    await files.watchDir("/tmp", () => undefined, { timeoutMs: 0, onExit })
    own.host.watches()[0]?.tell({ type: "lost", path: ".", reason: "too many" })
    await until("it ends", () => ends.length === 2)
    expect(String(ends[1])).toContain("events were lost: too many")
  })
})

test("metadata comes with a file, as a header or compressed, and each write replaces it", async () => {
  const { files } = await newest.Sandbox.create(options())
  const written = await files.write("a", "x".repeat(1000), {
    gzip: true,
    metadata: { author: "me", Step: "1" },
  })
  expect(written).toMatchObject({ metadata: { author: "me", step: "1" } })
  expect(await files.read("a")).toBe("x".repeat(1000))
  expect((await files.getInfo("a")).metadata).toEqual({ author: "me", step: "1" })
  await files.write("a", "y", { metadata: { step: "2" } })
  expect((await files.getInfo("a")).metadata).toEqual({ step: "2" })
  const stream = new Blob(["streamed"]).stream()
  expect(await files.write("b", stream)).toMatchObject({ path: "/workspace/b", name: "b" })
  expect(await files.read("b")).toBe("streamed")
})

test("a link has the type of its target, and its events have their entry", async () => {
  own.host.files = new Map([
    ["/workspace/target", { bytes: "12" }],
    ["/workspace/link", { type: "symlink" as const, target: "target" }],
    ["/workspace/stray", { type: "symlink" as const, target: "nowhere" }],
  ])
  const { files } = await newest.Sandbox.create(options())
  const listed: object[] = await files.list(".")
  expect(listed).toMatchObject([
    { name: "link", type: "file", symlinkTarget: "/workspace/target" },
    { name: "stray", symlinkTarget: "/workspace/stray" },
    { name: "target", type: "file" },
  ])
  const told: unknown[] = []
  const onEvent = (event: unknown) => void told.push(event)
  await files.watchDir(".", onEvent, { timeoutMs: 0, includeEntry: true })
  own.host.watches()[0]?.tell({ type: "create", path: "link" })
  own.host.watches()[0]?.tell({ type: "create", path: "gone" })
  await until("both are told", () => told.length === 2)
  expect(told).toMatchObject([{ entry: { path: "/workspace/link", type: "file" } }, { name: "gone" }])
})

describe.each(e2bSdks)("signed addresses of e2b %s", (_version, e2b) => {
  test("read and write a file without a key, until they expire", async () => {
    const sandbox = await e2b.Sandbox.create({ ...options(), secure: true })
    await e2b.Sandbox.create(options())
    await sandbox.files.write("a b", "old")
    expect(await (await fetch(await sandbox.downloadUrl("a b"))).text()).toBe("old")
    const upload = await sandbox.uploadUrl("a b", { useSignatureExpiration: 100 })
    const form = new FormData()
    form.append("file", new Blob(["new"]), "ignored")
    expect((await fetch(upload, { method: "POST", body: form })).status).toBe(200)
    expect(await sandbox.files.read("a b")).toBe("new")
    expect((await fetch(upload)).status).toBe(401)
    const late = await fetch(await sandbox.downloadUrl("a b", { useSignatureExpiration: -10 }))
    expect(await late.json()).toEqual({ code: 401, message: "signature is already expired" })
  })
})

test("a signed address is for one path, user and time, and for a sandbox's host name if it has one", async () => {
  const sandbox = await newest.Sandbox.create(options())
  const other = await newest.Sandbox.create(options())
  await sandbox.files.write("a", "mine")
  await other.files.write("a", "other's")
  const url = await sandbox.downloadUrl("a", { useSignatureExpiration: 100 })
  const changed = async (change: (query: URLSearchParams) => void, headers: Record<string, string> = {}) => {
    const one = new URL(url)
    change(one.searchParams)
    const answer = await fetch(one, { headers })
    return `${answer.status} ${await answer.text()}`
  }
  const hostOf = ({ sandboxId }: newest.Sandbox) => ({ host: `49983-${sandboxId}.localhost` })
  const same = () => undefined
  expect(await changed(same)).toBe("200 mine")
  expect(await changed(same, hostOf(sandbox))).toBe("200 mine")
  expect(await changed(same, hostOf(other))).toContain("invalid signature")
  expect(await changed(same, { host: "49983-0123456789abcdef.localhost" })).toContain("invalid signature")
  expect(await changed((query) => query.set("path", "b"))).toContain("invalid signature")
  expect(await changed((query) => query.set("username", "root"))).toContain("invalid signature")
  expect(await changed((query) => query.set("signature_expiration", "9999999999"))).toContain(
    "invalid signature",
  )
  expect(await changed((query) => query.delete("signature_expiration"))).toContain("invalid signature")
  expect(await changed((query) => query.delete("signature"), hostOf(sandbox))).toContain(
    "missing signature query parameter",
  )
  await own.call("DELETE", "/keys/agent")
  expect(await changed(same)).toContain("invalid signature")
})

test("a sandbox's token is no key, is good for no other sandbox, and ends with its key", async () => {
  const sandbox = await newest.Sandbox.create(options())
  const other = await newest.Sandbox.create(options())
  const { envdAccessToken: token = "" } = sandbox as unknown as { envdAccessToken?: string }
  expect(token).not.toContain(apiKey.slice(4))
  const headers = { "x-access-token": token }
  expect((await ask(sandbox.sandboxId, "/health", { headers })).status).toBe(204)
  expect((await ask(other.sandboxId, "/health", { headers })).status).toBe(401)
  expect((await own.call("GET", "/sandboxes", undefined, token)).status).toBe(401)
  const named = { host: `49983-${sandbox.sandboxId}.localhost` }
  expect((await fetch(`${own.url}/health`, { headers: { ...headers, ...named } })).status).toBe(204)
  expect((await fetch(`${own.url}/sandboxes`, { headers: { ...named, "x-api-key": apiKey } })).status).toBe(
    401,
  )
  await own.call("DELETE", "/keys/agent")
  expect((await ask(sandbox.sandboxId, "/health", { headers })).status).toBe(401)
})

const ask = (sandboxId: string, path: string, init: RequestInit = {}) =>
  fetch(own.url + path, {
    ...init,
    headers: {
      ...{ "e2b-sandbox-id": sandboxId, "e2b-sandbox-port": "49983", "x-access-token": apiKey },
      ...init.headers,
    },
  })
const rpc = async (sandboxId: string, method: string, body: object) => {
  const answer = await ask(sandboxId, `/filesystem.Filesystem/${method}`, {
    ...{ method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } },
  })
  return { status: answer.status, body: (await answer.json()) as { watcherId: string; events: unknown[] } }
}

test("a watcher that is asked again and again tells each event once, and is gone after its removal", async () => {
  const { sandboxId, files } = await newest.Sandbox.create(options())
  const { watcherId } = (await rpc(sandboxId, "CreateWatcher", { path: "/tmp", includeEntry: true })).body
  await files.write("/tmp/a", "12")
  own.host.watches()[0]?.tell({ type: "create", path: "a" })
  expect((await rpc(sandboxId, "GetWatcherEvents", { watcherId })).body).toMatchObject({
    events: [{ name: "a", type: "EVENT_TYPE_CREATE", entry: { path: "/tmp/a", size: "2" } }],
  })
  expect((await rpc(sandboxId, "GetWatcherEvents", { watcherId })).body.events).toBeUndefined()
  own.host.watches()[0]?.tell({ type: "remove", path: "a" })
  expect((await rpc(sandboxId, "GetWatcherEvents", { watcherId })).body.events).toEqual([
    { name: "a", type: "EVENT_TYPE_REMOVE" },
  ])
  expect((await rpc(sandboxId, "RemoveWatcher", { watcherId })).status).toBe(200)
  expect((await rpc(sandboxId, "GetWatcherEvents", { watcherId })).status).toBe(404)
  expect((await rpc(sandboxId, "GetWatcherEvents", { watcherId: "nonsense" })).status).toBe(404)
})

test("a body that cannot be read writes nothing, and a key without files is refused", async () => {
  const { sandboxId, files } = await newest.Sandbox.create(options())
  const post = async (
    path: string,
    headers: Record<string, string>,
    body: string | Uint8Array<ArrayBuffer>,
  ) => {
    const answer = await ask(sandboxId, path, { method: "POST", headers, body })
    return { status: answer.status, body: (await answer.json()) as { code: number } }
  }
  const form = { "content-type": "multipart/form-data; boundary=xx" }
  const part = '--xx\r\nContent-Disposition: form-data; name="file"; filename="cut"\r\n\r\nhalf'
  expect(await post("/files", form, part)).toMatchObject({ status: 400, body: { code: 400 } })
  expect(await files.exists("cut")).toBe(false)
  const compressed = Bun.gzipSync(Buffer.concat([Buffer.from(part), randomBytes(200_000)]))
  const cut = compressed.subarray(0, 150_000)
  expect((await post("/files", { ...form, "content-encoding": "gzip" }, cut)).status).toBe(400)
  expect(await files.exists("cut")).toBe(false)
  expect((await post("/files", form, "--xx--\r\n")).status).toBe(400)
  expect((await post("/files", { "content-type": "multipart/form-data" }, part)).status).toBe(400)
  expect((await post("/files?path=a", { "content-type": "text/plain" }, "x")).status).toBe(400)
  const plain = { "content-type": "application/octet-stream" }
  expect((await post("/files", plain, "x")).status).toBe(400)
  expect((await post("/files?path=a", { ...plain, "content-encoding": "gzip" }, "x")).status).toBe(400)
  expect((await post("/files?path=a", { ...plain, "content-encoding": "br" }, "x")).status).toBe(400)
  expect(await files.exists("a")).toBe(false)

  const { key } = CreatedKey.parse((await own.call("POST", "/keys", { can: ["read", "exec"] })).body)
  const refused = await ask(sandboxId, "/files?path=a", { headers: { "x-access-token": key } })
  expect(refused.status).toBe(403)
  expect(await refused.text()).toContain("lacks the permission")
})
