/**
 * Batches that compete for the last places of a limit: as many succeed as fit, and none of the others holds a place
 * meanwhile.
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let app: HttpApp
let key: string

beforeEach(async () => {
  app = await openHttpApp()
  key = (await app.core.store.users.create({ name: "bob", maxSandboxes: 10 })).key
  // Reading takes as long as it takes, so requests overtake each other.
  const { store } = app.core
  const reveal = store.secrets.reveal.bind(store.secrets)
  let asked = 0
  store.secrets.reveal = async (...given) => {
    for (let turns = (asked++ * 7) % 5; turns > 0; turns--) await new Promise(setImmediate)
    return reveal(...given)
  }
})
afterEach(() => app[Symbol.asyncDispose]())

const call = (method: string, path: string, body?: unknown) => app.call(method, path, body, key)
const single = () => call("POST", "/sandboxes", {})
const batch = (count: number, input: object = {}) => call("POST", "/sandboxes/batch", { count, ...input })

async function names(): Promise<string[]> {
  const { body } = await call("GET", "/sandboxes")
  return (body as { name: string; status: string }[]).map(({ name, status }) => {
    expect(status).toBe("running")
    return name
  })
}

async function occupy(count: number): Promise<void> {
  for (let made = 0; made < count; made++) expect((await single()).status).toBe(201)
}

/** The sandboxes that exist are those that were answered, and nothing else is on the host. */
async function expectOnly(count: number): Promise<void> {
  expect(await names()).toHaveLength(count)
  expect(app.host.running.size).toBe(count)
  expect(app.host.directories.size).toBe(count)
  expect(app.host.attached.size).toBe(count)
}

const ways = [
  ["created", {}],
  ["forked", { from: "source" }],
] as const

describe.each(ways)("batches of three that are %s", (_way, input) => {
  beforeEach(async () => {
    if ("from" in input) expect((await call("POST", "/sandboxes", { name: "source" })).status).toBe(201)
    else await occupy(1)
  })

  test("five at once with four places free: one succeeds whole", async () => {
    await occupy(5)
    const answers = await Promise.all(Array.from({ length: 5 }, () => batch(3, input)))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 429, 429, 429, 429])
    await expectOnly(9)
  })

  test("five at once with seven places free: two succeed whole", async () => {
    await occupy(2)
    const answers = await Promise.all(Array.from({ length: 5 }, () => batch(3, input)))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 201, 429, 429, 429])
    await expectOnly(9)
  })

  test("they are listed as creating until the last one runs", async () => {
    const { machines } = app.host
    const start = machines.start.bind(machines)
    const goOn = Promise.withResolvers<void>()
    let begun = 0
    machines.start = async (...given) => {
      if (++begun === 3) await goOn.promise
      return start(...given)
    }
    const answer = batch(3, { ...input, name: "w" })
    const states = async () => {
      const { body } = await call("GET", "/sandboxes")
      const members = (body as { name: string }[]).filter(({ name }) => name.startsWith("w-"))
      return members.map((one) => ("status" in one ? one.status : undefined))
    }
    const hot = async () =>
      (await app.core.store.sandboxes.listOnHost()).filter(
        ({ name, state }) => name.startsWith("w-") && state.kind === "hot",
      )
    await until("two of them run", async () => (await hot()).length === 2)
    expect(await states()).toEqual(["creating", "creating", "creating"])
    goOn.resolve()
    expect((await answer).body).toMatchObject(Array.from({ length: 3 }, () => ({ status: "running" })))
    expect(await states()).toEqual(["running", "running", "running"])
  })

  test("beside single ones: what is refused did not fit", async () => {
    const requests = [
      batch(3, input),
      single(),
      batch(3, input),
      single(),
      batch(3, input),
      single(),
      single(),
    ]
    const answers = await Promise.all([...requests, batch(3, input), single(), single()])
    const made = answers.filter(({ status }) => status === 201)
    const count = made.reduce((sum, { body }) => sum + (Array.isArray(body) ? body.length : 1), 1)
    expect(made.length + answers.filter(({ status }) => status === 429).length).toBe(answers.length)
    // Places only fill up: a single one that was refused met a full house.
    expect(count).toBe(10)
    await expectOnly(10)
  })
})

test("a batch that is refused says how many places it wanted, and takes none", async () => {
  await occupy(8)
  const { status, body } = await batch(3)
  expect(status).toBe(429)
  expect(body).toMatchObject({
    code: "limit_exceeded",
    message: "3 more sandboxes are above your limit of 10",
  })
  expect((await batch(2)).status).toBe(201)
})

test("a batch of which one name is taken makes none", async () => {
  expect((await call("POST", "/sandboxes", { name: "w-3" })).status).toBe(201)
  const { status, body } = await batch(3, { name: "w" })
  expect(status).toBe(409)
  expect(body).toMatchObject({ message: 'a sandbox named "w-3" exists already' })
  await expectOnly(1)
})

test("a batch whose last machine does not start leaves nothing, and no event says that one was created", async () => {
  let clones = 0
  const { machines } = app.host
  const start = machines.start.bind(machines)
  machines.start = async (...given) => {
    if (++clones === 6) app.host.failAt = "clone"
    return start(...given)
  }
  expect((await batch(6)).status).toBe(503)
  app.host.failAt = undefined
  await expectOnly(0)
  const { body } = await call("GET", "/events")
  expect((body as { type: string }[]).filter(({ type }) => type === "sandbox.created")).toEqual([])
})

test("what waits for its turn in a batch can be destroyed, which undoes the batch", async () => {
  const { machines } = app.host
  const start = machines.start.bind(machines)
  const begun = Promise.withResolvers<void>()
  const goOn = Promise.withResolvers<void>()
  machines.start = async (...given) => {
    begun.resolve()
    await goOn.promise
    return start(...given)
  }
  const answer = batch(6, { name: "w" })
  await begun.promise
  const last = (await app.core.store.sandboxes.listOnHost()).find(({ name }) => name === "w-6")
  const destroyed = call("DELETE", "/sandboxes/w-6")
  await until("it is to be destroyed", () => last !== undefined && app.core.destroying.has(last.id))
  goOn.resolve()
  expect((await answer).status).toBe(409)
  await destroyed
  await expectOnly(0)
})
