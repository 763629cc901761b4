/** The published SDKs of e2b against the control plane, through the real application on a fake host. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { CreatedKey } from "@bhatti/contract/key"
import * as newest from "e2b"
import { e2bSdks } from "../support/e2b-sdks.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
let apiKey: string
beforeEach(async () => {
  own = await openHttpApp({ e2b: true })
  const can = ["read", "exec", "files", "power", "edit", "create", "destroy", "snapshots"]
  const { key } = CreatedKey.parse((await own.call("POST", "/keys", { can })).body)
  apiKey = key.replace("bht_", "e2b_")
})
afterEach(() => own[Symbol.asyncDispose]())

describe.each(e2bSdks)("e2b %s", (_version, { Sandbox, AuthenticationError, SandboxNotFoundError }) => {
  const options = () => ({ apiKey, apiUrl: own.url, sandboxUrl: own.url })

  test("creates, describes, lists and kills a sandbox, and a missing one is false or its error", async () => {
    const sandbox = await Sandbox.create({ ...options(), metadata: { job: "a1" }, timeoutMs: 90_000 })
    expect(sandbox.sandboxId).toMatch(/^[0-9a-f]{16}$/)
    const about = await Sandbox.getInfo(sandbox.sandboxId, options())
    expect(about).toMatchObject({ state: "running", metadata: { job: "a1" }, cpuCount: 1, memoryMB: 512 })
    expect(about.endAt.getTime() - about.startedAt.getTime()).toBeWithin(85_000, 95_000)

    const listed = async (query: object) => {
      const pages = Sandbox.list({ ...options(), ...query })
      return (await pages.nextItems()).map(({ sandboxId }) => sandboxId)
    }
    expect(await listed({ query: { metadata: { job: "a1" } } })).toEqual([sandbox.sandboxId])
    expect(await listed({ query: { metadata: { job: "b" } } })).toEqual([])
    expect(await listed({ query: { state: ["paused"] } })).toEqual([])
    expect(await Sandbox.kill(sandbox.sandboxId, options())).toBe(true)
    expect(await Sandbox.kill(sandbox.sandboxId, options())).toBe(false)
    expect(await Sandbox.connect(sandbox.sandboxId, options()).catch((error) => error)).toBeInstanceOf(
      SandboxNotFoundError ?? Error,
    )
  })

  test("pages are stable, newest first, whatever is made meanwhile", async () => {
    const ids: string[] = []
    for (let count = 0; count < 5; count++) ids.push((await Sandbox.create(options())).sandboxId)
    const pages = Sandbox.list({ ...options(), limit: 2 })
    const first = await pages.nextItems()
    await Sandbox.create(options())
    const rest = [...(await pages.nextItems()), ...(await pages.nextItems())]
    expect(pages.hasNext).toBe(false)
    expect([...first, ...rest].map(({ sandboxId }) => sandboxId)).toEqual(ids.reverse())
  })

  test("a timeout may be made longer and shorter, and connect only makes it longer", async () => {
    const { sandboxId } = await Sandbox.create({ ...options(), timeoutMs: 300_000 })
    const left = async () =>
      Math.round(((await Sandbox.getInfo(sandboxId, options())).endAt.getTime() - Date.now()) / 1000)
    await Sandbox.setTimeout(sandboxId, 600_000, options())
    expect(await left()).toBeWithin(590, 602)
    await Sandbox.connect(sandboxId, { ...options(), timeoutMs: 60_000 })
    expect(await left()).toBeWithin(590, 602)
    await Sandbox.setTimeout(sandboxId, 30_000, options())
    expect(await left()).toBeWithin(20, 32)
    await Sandbox.connect(sandboxId, { ...options(), timeoutMs: 60_000 })
    expect(await left()).toBeWithin(50, 62)
  })

  test("a pause is once, a connect continues it, and the new timeout counts", async () => {
    const sandbox = await Sandbox.create(options())
    const { sandboxId } = sandbox
    const pause = "pause" in Sandbox ? Sandbox.pause : (Sandbox as typeof newest.Sandbox).betaPause
    expect(await pause.call(Sandbox, sandboxId, options())).toBeTruthy()
    expect(await pause.call(Sandbox, sandboxId, options())).toBe(false)
    expect((await Sandbox.getInfo(sandboxId, options())).state).toBe("paused")
    await Sandbox.connect(sandboxId, options())
    expect((await Sandbox.getInfo(sandboxId, options())).state).toBe("running")
    expect(await Sandbox.getMetrics(sandboxId, options())).toMatchObject([{ cpuCount: 1 }])
  })

  test("a wrong key is the SDK's authentication error, and a key's missing permission is told", async () => {
    const wrong = `e2b_${"0".repeat(64)}`
    const refused = await Sandbox.create({ ...options(), apiKey: wrong }).catch((error) => error)
    expect(refused).toBeInstanceOf(AuthenticationError)
    const { key } = CreatedKey.parse((await own.call("POST", "/keys", { can: ["read"] })).body)
    const reader = { ...options(), apiKey: key.replace("bht_", "e2b_") }
    const message = String(await Sandbox.create(reader).catch((error) => error))
    expect(message).toContain('this key lacks the permission "create"')
    const { sandboxId } = await Sandbox.create(options())
    expect(await Sandbox.getInfo(sandboxId, reader)).toMatchObject({ sandboxId })
  })
})

test("snapshots and forks", async () => {
  const options = { apiKey, apiUrl: own.url, sandboxUrl: own.url }
  const { Sandbox } = newest
  const { sandboxId } = await Sandbox.create({ ...options, metadata: { job: "a" } })
  const { snapshotId } = await Sandbox.createSnapshot(sandboxId, options)
  expect(
    (await Sandbox.listSnapshots({ ...options, sandboxId }).nextItems()).map((one) => one.snapshotId),
  ).toEqual([snapshotId])
  const copy = await Sandbox.create(snapshotId, { ...options, timeoutMs: 60_000 })
  expect(await Sandbox.getInfo(copy.sandboxId, options)).toMatchObject({ metadata: { job: "a" } })
  expect(await Sandbox.deleteSnapshot(snapshotId, options)).toBe(true)
  expect(await Sandbox.deleteSnapshot(snapshotId, options)).toBe(false)
})

async function raw(method: string, path: string, body?: object, headers: Record<string, string> = {}) {
  const response = await fetch(own.url + path, {
    method,
    headers: { "x-api-key": apiKey, ...headers },
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) }
}

test("the calls that older clients make, and what cannot be kept, are answered in e2b's form", async () => {
  const made = await raw("POST", "/sandboxes", { templateID: "base", secure: true, timeout: 60, unknown: 1 })
  expect(made).toMatchObject({ status: 201, body: { templateID: "workspace", envdVersion: "0.6.13" } })
  const { sandboxID } = made.body
  expect(await raw("POST", `/sandboxes/${sandboxID}/resume`, { timeout: 60 })).toMatchObject({ status: 409 })
  expect(await raw("POST", `/sandboxes/${sandboxID}/refreshes`, { duration: 600 })).toMatchObject({
    status: 204,
  })
  expect((await raw("GET", `/sandboxes/${sandboxID}/logs`)).body.logs.at(-1).line).toContain("sandbox.")
  const network = { allowOut: ["api.example.com", "93.184.216.0/24"], denyOut: ["0.0.0.0/0"] }
  expect(await raw("PUT", `/sandboxes/${sandboxID}/network`, network)).toMatchObject({ status: 204 })
  expect((await own.call("GET", `/sandboxes/sb_${sandboxID}`)).body).toMatchObject({
    net_policy: { default: "deny", allow_hosts: ["api.example.com"], allow_cidrs: ["93.184.216.0/24"] },
  })
  expect(await raw("PUT", `/sandboxes/${sandboxID}/network`, { rules: { a: 1 } })).toEqual({
    status: 400,
    body: { code: 400, message: "network.rules is not supported" },
  })
  expect(await raw("POST", "/sandboxes", { templateID: "nothing" })).toMatchObject({
    status: 404,
    body: { code: 404 },
  })
  expect(await raw("POST", "/sandboxes", {})).toMatchObject({ status: 400, body: { code: 400 } })
  expect(await raw("GET", "/sandboxes/dev")).toMatchObject({ status: 404, body: { code: 404 } })
  expect(await raw("GET", "/nothing")).toMatchObject({ status: 404, body: { code: 404 } })
  expect(await raw("GET", "/v2/sandboxes", undefined, { origin: "https://evil.example" })).toMatchObject({
    status: 200,
  })
  expect(
    await raw("POST", "/sandboxes", { templateID: "base" }, { origin: "https://evil.example" }),
  ).toMatchObject({
    status: 403,
  })
})

test("without the setting nobody answers, and with it the API is as before", async () => {
  expect((await own.call("GET", "/sandboxes")).body).toEqual([])
  await using other = await openHttpApp()
  const response = await fetch(`${other.url}/v2/sandboxes`, { headers: { "x-api-key": apiKey } })
  expect(response.status).toBe(404)
})

test("a key that may only start sandboxes changes no lifetime, and one that only creates copies no snapshot", async () => {
  const keyFor = async (can: string[]) =>
    CreatedKey.parse((await own.call("POST", "/keys", { can })).body).key
  const { sandboxID } = (await raw("POST", "/sandboxes", { templateID: "base", timeout: 600 })).body
  expect((await raw("POST", `/sandboxes/${sandboxID}/snapshots`, { name: "kept" })).status).toBe(201)
  await raw("POST", `/sandboxes/${sandboxID}/pause`)
  const before = (await own.call("GET", `/sandboxes/sb_${sandboxID}`)).body as object

  const power = { "x-api-key": await keyFor(["power"]) }
  const now = { timeout: 0, autoPause: false }
  expect((await raw("POST", `/sandboxes/${sandboxID}/resume`, now, power)).status).toBe(403)
  expect((await raw("POST", `/sandboxes/${sandboxID}/connect`, now, power)).status).toBe(403)
  const { ends_at } = (await own.call("GET", `/sandboxes/sb_${sandboxID}`)).body as { ends_at: string }
  expect(Math.abs(Date.parse(ends_at) - Date.parse((before as { ends_at: string }).ends_at))).toBeLessThan(50)

  const creator = { "x-api-key": await keyFor(["create"]) }
  expect((await raw("POST", "/sandboxes", { templateID: "kept" }, creator)).status).toBe(404)
  const both = { "x-api-key": await keyFor(["create", "snapshots"]) }
  expect((await raw("POST", "/sandboxes", { templateID: "kept" }, both)).status).toBe(201)
})
