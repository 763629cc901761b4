/**
 * A request is made when it has come whole. One that was begun with a key, and whose rest comes when the operator has
 * taken that key away, does nothing, on every endpoint of the contract. Nobody polls here: the database alone says it.
 */

import { Database } from "bun:sqlite"
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { api } from "@bhatti/contract/api"
import type { Endpoint } from "@bhatti/contract/endpoint"
import { createSandbox } from "../../src/core/create.ts"
import { openStore, type Store } from "../../src/store/store.ts"
import { connectRaw } from "../proxy/stage.ts"
import { until } from "../support/installation.ts"
import { type SampleRequest, sampleRequests } from "./samples.ts"
import { type Served, serveOnFakeHost } from "./served.ts"

let directory: string
let served: Served
let operator: Store
let key: string
/** Requests to guests. */
const asked: string[] = []

beforeAll(async () => {
  directory = mkdtempSync("/tmp/bhatti-begun-")
  served = await serveOnFakeHost({ dataDir: directory, isRateLimited: false })
  operator = await openStore({ dataDir: directory })
  key = (await operator.users.create({ name: "alice" })).key
  served.host.opened = (guest) => recorded(guest, asked)
  const { receive } = served.host.pulls
  served.host.pulls.receive = (bytes, options) => receive(noted(bytes), options)
  const created = await fetch(`${served.url}/sandboxes`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}` },
    body: '{"name":"dev","init":"serve"}',
  })
  expect(created.status).toBe(201)
})

beforeEach(() => {
  asked.length = 0
})

afterAll(async () => {
  await operator.close()
  await served[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

/** Notes each call, and what is written to a transfer or a session. */
function recorded<T extends object>(target: T, calls: string[], prefix = ""): T {
  return new Proxy(target, {
    get(object, method: string) {
      const value = Reflect.get(object, method)
      if (method === "processes") return recorded(value as object, calls)
      if (typeof value !== "function") return value
      return (...given: unknown[]) => {
        const [first] = given
        const name = (first as { op?: string } | undefined)?.op ?? method
        calls.push(`${prefix}${name}${first instanceof Uint8Array ? `:${Buffer.from(first)}` : ""}`)
        const result = value.apply(object, given)
        return typeof result?.endInput === "function" ? recorded(result, calls, `${name}.`) : result
      }
    },
  }) as T
}

/** The bytes of an archive that is imported, noted as those of a transfer. */
async function* noted(bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  asked.push("importImage")
  try {
    for await (const piece of bytes) {
      asked.push(`importImage.write:${Buffer.from(piece)}`)
      yield piece
    }
  } finally {
    asked.push("importImage.close")
  }
}

/** The state that a request may change, outside the guest. */
function state(): unknown {
  using database = new Database(join(directory, "bhatti.db"), { readonly: true })
  const tables = ["sandboxes", "secrets", "published_ports", "snapshots"]
  const rows = tables.map((table) => database.query(`select * from ${table} order by 1`).all())
  const { running, directories, kept, drafts, pauses, memories } = served.host
  return structuredClone({ rows, running, directories, kept, drafts, pauses, memories })
}

const requests = sampleRequests("dev").filter(({ isPublic }) => !isPublic)
const plain = requests.filter(({ messages }) => messages === undefined)
const sockets = requests.filter(({ messages }) => messages !== undefined)
/** A build waits for its first line, and does nothing before. */
const isStreamed = ({ name }: SampleRequest) =>
  (api[name] as Endpoint).bodyBytes === true && name !== "buildImage"

/** Sends the head and a part of the body, takes the key away when both are there, and sends the rest. */
async function split(request: SampleRequest, given: { key: string; takeAway: () => Promise<unknown> }) {
  const body = request.body ?? "{}"
  const head = [
    `${request.method} ${request.path} HTTP/1.1`,
    "Host: localhost",
    `Authorization: Bearer ${given.key}`,
    `Content-Length: ${body.length}`,
    // The daemon tells when it has looked at the key and waits for the body.
    "Expect: 100-continue",
    "Connection: close",
    "",
    "",
  ].join("\r\n")
  const connection = await connectRaw(Number(new URL(served.url).port), head)
  await until("the body is wanted", () => connection.answer().includes("100 Continue"))
  connection.socket.write(body.slice(0, 1))
  if (isStreamed(request)) await until("its first byte is there", () => asked.some(isWrite))
  await given.takeAway()
  const before = state()
  connection.socket.write(body.slice(1))
  await until("it is answered and closed", () => connection.isClosed())
  expect(state()).toEqual(before)
  return connection.answer().replace(/^HTTP\/1.1 100 Continue\r\n\r\n/, "")
}

const isWrite = (call: string) => call.includes(".write:")

describe("a request whose key is rotated before its last byte is refused and does nothing", () => {
  test.each(plain.map((request) => [request.name, request] as const))("%s", async (_name, request) => {
    const takeAway = async () => {
      key = (await operator.users.rotateKey("alice")).key
    }
    const answer = await split(request, { key, takeAway })
    expect(answer).toStartWith("HTTP/1.1 401 ")
    expect(answer).toContain('"code":"unauthenticated"')
    if (!isStreamed(request)) return expect(asked).toEqual([])
    // Its one byte came with a valid key; the transfer is given up, and so leaves nothing.
    const opened = request.name === "writeProcess" ? "input" : request.name
    const calls = new Set(asked.filter((call) => call !== "get"))
    expect([...calls]).toEqual([opened, `${opened}.write:t`, `${opened}.close`])
  })
})

describe("so is that of a user who is deleted meanwhile", () => {
  const elsewhere = plain.filter((request) => !isStreamed(request))
  test.each(elsewhere.map((request) => [request.name, request] as const))("%s", async (_name, request) => {
    const { key: bobs } = await operator.users.create({ name: "bob" })
    const answer = await split(request, { key: bobs, takeAway: () => operator.users.remove("bob") })
    expect(answer).toStartWith("HTTP/1.1 401 ")
    expect(asked).toEqual([])
  })
})

describe("a message that comes over a WebSocket when its key is rotated is told so and does nothing", () => {
  test.each(sockets.map((request) => [request.name, request] as const))("%s", async (_name, request) => {
    const socket = new WebSocket(served.url.replace("http", "ws") + request.path, {
      headers: { authorization: `Bearer ${key}` },
    } as never)
    const told: Record<string, unknown>[] = []
    socket.onmessage = ({ data }) => void (typeof data === "string" && told.push(JSON.parse(data)))
    const closed = new Promise((resolve) => {
      socket.onclose = resolve
    })
    await new Promise((resolve) => {
      socket.onopen = resolve
    })
    const isBegun = request.messages?.length === 0
    if (isBegun) await until("it has begun", () => told.length > 0)
    key = (await operator.users.rotateKey("alice")).key
    asked.length = 0
    for (const message of [...(request.messages ?? []), "typed", Buffer.from("typed")]) socket.send(message)
    await closed
    const error = { type: "error", code: "unauthenticated", message: "the API key is not valid any more" }
    expect(told.slice(isBegun ? 1 : 0)).toEqual([expect.objectContaining(error)])
    expect(asked.filter((call) => !/(close|leave)$/.test(call))).toEqual([])
  })
})

describe("what waits for its sandbox to wake when its key is rotated does nothing then", () => {
  const ofGuest = new Set([
    "exec",
    "makeDirectory",
    "moveFile",
    "removeFile",
    "readFile",
    "listPorts",
    "killSession",
  ])
  const waiting = plain.filter(({ name }) => ofGuest.has(name))
  test.each(waiting.map((request) => [request.name, request] as const))("%s", async (_name, request) => {
    const { machines } = served.host
    const ask = (method: string, path: string, body?: string) =>
      fetch(served.url + path, {
        method,
        headers: { authorization: `Bearer ${key}` },
        ...(body !== undefined && { body }),
      })
    expect((await ask("POST", "/sandboxes/dev/stop")).status).toBe(200)
    asked.length = 0
    const begun = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const start = machines.start.bind(machines)
    machines.start = async (...given) => {
      begun.resolve()
      await goOn.promise
      return start(...given)
    }
    try {
      const answer = ask(request.method, request.path, request.body)
      await begun.promise
      key = (await operator.users.rotateKey("alice")).key
      goOn.resolve()
      expect((await answer).status).toBe(401)
    } finally {
      machines.start = start
    }
    expect(asked.filter((call) => !ofWake.has(call))).toEqual([])
  })
})

/** Calls that make a guest ready for anybody. */
const ofWake = new Set(["watch", "waitReady", "personalise", "share", "refresh", "ping"])

test("what a user who is deleted in the middle of a request would have gets no row and no wrong reason", async () => {
  const { key: carols } = await operator.users.create({ name: "carol" })
  const { store } = served.core
  const account = await store.users.findByKey(carols)
  if (!account) throw new Error("no account")
  await operator.users.remove("carol")
  const gone = expect.objectContaining({ code: "unauthenticated" })
  await expect(store.secrets.set(account.id, "A", "b")).rejects.toEqual(gone)
  await expect(createSandbox(served.core, account, {})).rejects.toEqual(gone)
})
