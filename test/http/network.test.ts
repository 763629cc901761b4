/** The network of sandboxes as core keeps it, through the HTTP interface on a fake host: who is attached, and when. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { RateLimits } from "@bhatti/contract/config"
import { Sandbox } from "@bhatti/contract/sandbox"
import { newCore } from "../../src/core/assemble.ts"
import type { Core } from "../../src/core/core.ts"
import { reconcile } from "../../src/core/reconcile.ts"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { createApp } from "../../src/http/app.ts"
import { openStore } from "../../src/store/store.ts"
import { type FakeHost, fakeHost } from "../support/fake-host.ts"
import { type ServedApp, serveApp } from "../support/served-app.ts"

let host: FakeHost
let core: Core
let served: ServedApp
let call: (method: string, path: string, body?: unknown) => Promise<{ status: number; body: unknown }>

beforeEach(async () => {
  host = fakeHost()
  const store = await openStore({ memory: true })
  core = newCore({
    store,
    host,
    log: { info() {}, warn() {}, error() {} },
    settings: {
      thermal: { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 },
      diskReserveMib: 1024,
      memoryReserveMib: 512,
      templateDiskMib: 0,
      pool: { sizeMax: 0, memoryMibMax: 0 },
      publicAddress: { scheme: "http", domain: "localhost", port: 8080 },
      guestDefaults: {},
    },
  })
  const about = { version: "0", accelerator: "tcg", acceleratorReason: "test", warnings: [] } as const
  const app = createApp(
    core,
    { ...about, warnings: [] },
    { apiHosts: [], rates: new RequestRates(RateLimits.parse({})) },
  )
  served = serveApp(core, app)
  const { key } = await store.users.create({ name: "alice" })
  call = async (method, path, body) => {
    const response = await fetch(`${served.url}${path}`, {
      method,
      headers: { authorization: `Bearer ${key}` },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    return { status: response.status, body: await response.json() }
  }
})

afterEach(async () => {
  await served[Symbol.asyncDispose]()
  await core.store.close()
})

const denied = { default: "deny", allow_hosts: [], allow_cidrs: [] }

async function create(body: Record<string, unknown>): Promise<Sandbox> {
  const made = await call("POST", "/sandboxes", body)
  expect(made.status).toBe(201)
  return Sandbox.parse(made.body)
}

test("a sandbox is attached while it has a machine, and not longer", async () => {
  const { id, ip, created_by } = await create({ name: "My_Web" })
  expect(host.attached.get(id)).toMatchObject({ owner: created_by, hostname: "my-web" })
  expect(host.linked.has(id)).toBe(true)
  expect(host.identities.at(-1)?.network?.address).toBe(ip ?? "")

  await call("POST", `/sandboxes/${id}/stop`)
  expect(host.attached.size).toBe(0)
  await call("POST", `/sandboxes/${id}/start`, {})
  expect([...host.attached.keys()]).toEqual([id])
  await call("DELETE", `/sandboxes/${id}`)
  expect(host.attached.size).toBe(0)
})

test.each(["attach", "link"])(
  "a create whose network fails at %s fails, and leaves nothing",
  async (step) => {
    host.failAt = step
    expect((await call("POST", "/sandboxes", { name: "dev" })).status).toBe(503)
    expect([host.attached.size, host.running.size, host.directories.size]).toEqual([0, 0, 0])
    host.failAt = undefined
    await create({ name: "dev" })
  },
)

test.each(["attach", "link"])("a stopped one whose network fails at %s stays stopped", async (step) => {
  const { id } = await create({ name: "dev" })
  for (const hasMemory of [true, false]) {
    await call("POST", `/sandboxes/${id}/stop`)
    if (!hasMemory) host.memories.clear()
    host.failAt = step
    expect((await call("POST", `/sandboxes/${id}/start`, {})).status).toBe(503)
    expect([host.attached.size, host.running.size]).toEqual([0, 0])
    host.failAt = undefined
    expect((await call("POST", `/sandboxes/${id}/start`, {})).status).toBe(200)
  }
})

test("an edit changes a running one at once, and a stopped one when it starts", async () => {
  const { id, net_policy } = await create({ name: "dev" })
  expect(net_policy.default).toBe("public")
  const edited = await call("PATCH", "/sandboxes/dev", { net_policy: { default: "deny" } })
  expect(edited.body).toMatchObject({ net_policy: denied })
  expect(host.attached.get(id)?.policy).toEqual(denied as never)

  await call("POST", "/sandboxes/dev/stop")
  await call("PATCH", "/sandboxes/dev", { net_policy: { allow_hosts: ["example.com"] } })
  expect(host.attached.size).toBe(0)
  await call("POST", "/sandboxes/dev/start", {})
  expect(host.attached.get(id)?.policy).toMatchObject({ default: "deny", allow_hosts: ["example.com"] })
})

test("an edit that cannot be applied changes nothing; one that is refused neither", async () => {
  await create({ name: "other" })
  const { id } = await create({ name: "dev" })
  host.failAt = "attach"
  expect((await call("PATCH", "/sandboxes/dev", { net_policy: { default: "deny" } })).status).toBe(503)
  host.failAt = undefined
  expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ net_policy: { default: "public" } })
  const both = { name: "other", net_policy: { default: "deny" } }
  expect((await call("PATCH", "/sandboxes/dev", both)).status).toBe(409)
  expect(host.attached.get(id)).toMatchObject({ hostname: "dev", policy: { default: "public" } })
})

test("a new name is the neighbours' at once", async () => {
  const { id } = await create({ name: "dev" })
  await call("PATCH", "/sandboxes/dev", { name: "web" })
  expect(host.attached.get(id)?.hostname).toBe("web")
})

test("a copy has its source's policy, or the one that it is given", async () => {
  await create({ name: "dev", net_policy: { default: "deny" } })
  expect((await create({ name: "same", from: "dev" })).net_policy).toEqual(denied as never)
  const other = await create({ name: "else", from: "dev", net_policy: { default: "public" } })
  expect(other.net_policy.default).toBe("public")
})

test("a daemon that starts attaches those that have a machine, and tells a guest whose address is another now", async () => {
  const running = await create({ name: "running" })
  const moved = await create({ name: "moved" })
  await create({ name: "stopped" })
  await call("POST", "/sandboxes/stopped/stop")
  await core.store.sandboxes.setAddress(moved.id as never, "10.99.0.1")
  core.guests.clear()
  host.attached.clear()
  const before = host.identities.length
  await (await reconcile(core)).settled
  expect([...host.attached.keys()].sort()).toEqual([running.id, moved.id].sort())
  expect(host.identities.slice(before).map(({ hostname }) => hostname)).toEqual(["moved"])
})

test("a policy that means nothing is refused", async () => {
  for (const net_policy of [
    { default: "open" },
    { default: "public", allow_hosts: ["example.com"] },
    { allow_hosts: ["10.0.0.1"] },
    { allow_cidrs: ["::/0"] },
    { allow_hosts: Array.from({ length: 65 }, (_, number) => `a${number}.example.com`) },
    { ports: [80] },
  ])
    expect((await call("POST", "/sandboxes", { net_policy })).status).toBe(400)
  expect(host.attached.size).toBe(0)
})

test("a network that is internal and not opened is refused by name, at create, edit and copy; an opened one is not", async () => {
  await create({ name: "dev" })
  const refused = { allow_cidrs: ["192.168.0.0/16", "93.184.216.0/24", "169.254.169.254"] }
  for (const [method, path, body] of [
    ["POST", "/sandboxes", { name: "other" }],
    ["POST", "/sandboxes", { name: "other", from: "dev" }],
    ["PATCH", "/sandboxes/dev", {}],
  ] as const) {
    const { status, body: answer } = await call(method, path, { ...body, net_policy: refused })
    expect([status, answer]).toEqual([
      400,
      expect.objectContaining({
        error: expect.stringContaining("169.254.169.254/32, 192.168.0.0/16: internal"),
      }),
    ])
  }
  expect((await call("GET", "/sandboxes")).body).toHaveLength(1)
  expect((await call("GET", "/sandboxes/dev")).body).toMatchObject({ net_policy: { default: "public" } })
  const { status } = await call("PATCH", "/sandboxes/dev", { net_policy: { allow_cidrs: ["172.31.0.5"] } })
  expect(status).toBe(200)
})
