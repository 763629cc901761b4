/** A sandbox that nobody waits for any more is not made. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let app: HttpApp
/** Lets the host's step that is held go on. */
let release = () => {}
let isReached: boolean

beforeEach(async () => {
  app = await openHttpApp()
})
afterEach(async () => {
  release()
  await app[Symbol.asyncDispose]()
})

function hold(step: "begin" | "start"): void {
  const { promise, resolve } = Promise.withResolvers<void>()
  release = resolve
  isReached = false
  const part = (step === "begin" ? app.host.templates : app.host.machines) as unknown as Record<
    string,
    (...given: unknown[]) => Promise<unknown>
  >
  const original = part[step]?.bind(part)
  part[step] = async (...given) => {
    isReached = true
    await promise
    return original?.(...given)
  }
}

/** Asks, and leaves when the step is reached. */
async function askAndLeave(path: string, body: unknown, beforeLeaving = async () => {}): Promise<void> {
  const leaving = new AbortController()
  const answer = fetch(`${app.url}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${app.key}` },
    body: JSON.stringify(body),
    signal: leaving.signal,
  })
  await until("the step is reached", () => isReached)
  await beforeLeaving()
  const connections = app.connections()
  leaving.abort()
  expect(await answer.catch(({ name }: Error) => name)).toBe("AbortError")
  await until("the daemon has noticed", () => app.connections() < connections)
}

const names = async () =>
  ((await app.call("GET", "/sandboxes")).body as { name: string }[]).map(({ name }) => name)

async function expectNothingLeft(): Promise<void> {
  await until("it is gone", async () => (await names()).length === 0)
  expect([...app.host.directories]).toEqual([])
  expect(app.host.running.size).toBe(0)
  expect(app.host.attached.size).toBe(0)
}

test("a client that leaves while a template is made takes its create back at once; the template is finished", async () => {
  hold("begin")
  await askAndLeave("/sandboxes", { name: "dev" })
  await until("it is gone", async () => (await names()).length === 0)
  release()
  const again = await app.call("POST", "/sandboxes", { name: "dev" })
  expect(again.status).toBe(201)
  expect(app.host.running.size).toBe(1)
})

test("a client that leaves while the machine starts leaves nothing", async () => {
  hold("start")
  await askAndLeave("/sandboxes", { name: "dev" })
  release()
  await expectNothingLeft()
})

test("of several at once none is left", async () => {
  hold("start")
  await askAndLeave("/sandboxes/batch", { name: "worker", count: 3 })
  release()
  await expectNothingLeft()
})

test("nor a copy of a sandbox or of a snapshot; what it was made from stays", async () => {
  await app.call("POST", "/sandboxes", { name: "dev" })
  await app.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  for (const [path, body] of [
    ["/sandboxes", { name: "copy", from: "dev" }],
    ["/snapshots/kept/resume", { name: "copy" }],
  ] as const) {
    hold("start")
    await askAndLeave(path, body)
    release()
    await until("the copy is gone", async () => !(await names()).includes("copy"))
    expect(await names()).toEqual(["dev"])
    expect(app.host.directories.size).toBe(1)
    expect(app.host.running.size).toBe(1)
  }
})

test("who asks only if there is none, and leaves, does no harm to the one there is", async () => {
  await app.call("POST", "/sandboxes", { name: "dev" })
  const leaving = new AbortController()
  const answer = fetch(`${app.url}/sandboxes`, {
    method: "POST",
    headers: { authorization: `Bearer ${app.key}` },
    body: JSON.stringify({ name: "dev", if_not_exists: true }),
    signal: leaving.signal,
  }).catch(() => undefined)
  leaving.abort()
  await answer
  expect(await names()).toEqual(["dev"])
  expect((await app.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })).status).toBe(200)
})

test("destroy does not wait for the template either", async () => {
  hold("begin")
  const create = app.call("POST", "/sandboxes", { name: "dev" })
  await until("the template is in the making", () => isReached)
  expect((await app.call("DELETE", "/sandboxes/dev")).status).toBe(200)
  expect(await create).toMatchObject({ status: 409, body: { code: "conflict" } })
  expect(await names()).toEqual([])
})

test("whoever asked meanwhile for the same sandbox, if there is none, gets one of their own", async () => {
  hold("start")
  const body = { name: "dev", if_not_exists: true }
  let other: ReturnType<HttpApp["call"]> | undefined
  await askAndLeave("/sandboxes", body, async () => {
    other = app.call("POST", "/sandboxes", body)
    await until("the second request has arrived", () => app.connections() === 2)
  })
  release()
  expect((await other)?.status).toBe(201)
  expect(await names()).toEqual(["dev"])
  expect(app.host.running.size).toBe(1)
})
