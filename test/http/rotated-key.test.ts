/** A key that the operator takes away, in another process as the command line does, ends what is open with it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { ErrorBody } from "@bhatti/contract/system"
import { openStore, type Store } from "../../src/store/store.ts"
import { until } from "../support/installation.ts"
import { type Served, serveOnFakeHost } from "./served.ts"

let directory: string
let served: Served
let operator: Store
let key: string
let stopping: AbortController
let watching: Promise<void>

beforeEach(async () => {
  directory = mkdtempSync("/tmp/bhatti-keys-")
  served = await serveOnFakeHost({ dataDir: directory })
  operator = await openStore({ dataDir: directory })
  key = (await operator.users.create({ name: "alice" })).key
  stopping = new AbortController()
  watching = served.core.keys.run(stopping.signal)
  expect((await call("POST", "/sandboxes", { body: '{"name":"dev"}' })).status).toBe(201)
})

afterEach(async () => {
  stopping.abort()
  await watching
  await operator.close()
  await served[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

function call(
  method: string,
  path: string,
  options: { body?: string | ReadableStream; headers?: Record<string, string> } = {},
): Promise<Response> {
  return fetch(`${served.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${key}`, ...options.headers },
    ...(options.body !== undefined && { body: options.body }),
  })
}

/** The end that follows a rotation, which must come within a second. */
async function endAfterRotation<T>(end: Promise<T>): Promise<T> {
  const rotatedAt = performance.now()
  await operator.users.rotateKey("alice")
  const outcome = await end
  expect(performance.now() - rotatedAt).toBeLessThan(1000)
  return outcome
}

function openSocket(path: string): {
  socket: WebSocket
  messages: Record<string, unknown>[]
  closed: Promise<number>
} {
  const socket = new WebSocket(served.url.replace("http", "ws") + path, {
    headers: { authorization: `Bearer ${key}` },
  } as never)
  const messages: Record<string, unknown>[] = []
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") messages.push(JSON.parse(data))
  }
  const closed = new Promise<number>((resolve) => {
    socket.onclose = ({ code }) => resolve(code)
  })
  return { socket, messages, closed }
}

const told = { type: "error", code: "unauthenticated", message: "the API key is not valid any more" }

test("an exec over a WebSocket ends with the reason, and its command is killed", async () => {
  const { socket, messages, closed } = openSocket("/sandboxes/dev/exec/ws")
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["sleep"] }))
  await until("the command runs", () => messages.some(({ type }) => type === "started"))
  await endAfterRotation(closed)
  expect(messages.at(-1)).toMatchObject(told)
  expect(served.host.ongoing.commands).toBe(0)
})

test("a shell ends with the reason, and its session stays", async () => {
  const { messages, closed } = openSocket("/sandboxes/dev/ws?new=true")
  await until("the session is there", () => messages.some(({ type }) => type === "session"))
  await endAfterRotation(closed)
  expect(messages.at(-1)).toMatchObject(told)
  key = (await operator.users.rotateKey("alice")).key
  expect(await (await call("GET", "/sandboxes/dev/sessions")).json()).toMatchObject([
    { running: true, attached: false },
  ])
})

test("a socket whose first message has not come yet ends too", async () => {
  const { socket, closed } = openSocket("/sandboxes/dev/exec/ws")
  await new Promise((resolve) => {
    socket.onopen = resolve
  })
  await endAfterRotation(closed)
})

test("an exec as lines of JSON ends with an error event", async () => {
  const text = call("POST", "/sandboxes/dev/exec", {
    body: '{"cmd":["sleep"]}',
    headers: { accept: "application/x-ndjson" },
  }).then((response) => response.text())
  await until("the command runs", () => served.host.ongoing.commands === 1)
  const lines = (await endAfterRotation(text)).trim().split("\n")
  expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ type: "error", code: "unauthenticated" })
  expect(served.host.ongoing.commands).toBe(0)
})

test("who follows events is told and hears no more", async () => {
  const response = await call("GET", "/events?follow=true")
  expect(response.status).toBe(200)
  const lines = (await endAfterRotation(response.text())).trim().split("\n")
  expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ type: "error", code: "unauthenticated" })
})

test("a buffered exec ends as unauthenticated", async () => {
  const answer = call("POST", "/sandboxes/dev/exec", { body: '{"cmd":["sleep"]}' })
  await until("the command runs", () => served.host.ongoing.commands === 1)
  const response = await endAfterRotation(answer)
  expect(response.status).toBe(401)
  expect(ErrorBody.parse(await response.json()).message).toContain("not valid any more")
})

test("a download breaks off", async () => {
  // A guest that sends no more and does not end it either.
  served.host.download = async function* () {
    yield new Uint8Array(65_536)
    await new Promise(() => undefined)
  }
  await call("PUT", "/sandboxes/dev/files?path=/x", { body: "x" })
  const response = await call("GET", "/sandboxes/dev/files?path=/x")
  expect(response.status).toBe(200)
  await expect(endAfterRotation(response.arrayBuffer())).rejects.toThrow()
})

test("an upload ends as unauthenticated and writes nothing", async () => {
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new Uint8Array(1024)),
  })
  const answer = call("PUT", "/sandboxes/dev/files?path=/up", { body })
  await until("the upload runs", () => served.host.ongoing.uploads === 1)
  expect((await endAfterRotation(answer)).status).toBe(401)
  expect(served.host.ongoing.uploads).toBe(0)
  key = (await operator.users.rotateKey("alice")).key
  expect((await call("GET", "/sandboxes/dev/files?path=/up&stat=true")).status).toBe(404)
})

test("another user's streams go on, and so do mine with the key that is valid", async () => {
  const { key: bobs } = await operator.users.create({ name: "bob" })
  await operator.users.create({ name: "carol" })
  const { socket, messages, closed } = openSocket("/sandboxes/dev/exec/ws")
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["sleep"] }))
  await until("the command runs", () => messages.some(({ type }) => type === "started"))
  await operator.users.rotateKey("bob")
  await until("the rotation is seen", async () => (await served.core.keys.find(bobs)) === undefined)
  await served.core.keys.look()
  expect(socket.readyState).toBe(WebSocket.OPEN)
  await endAfterRotation(closed)
})

test("a user who is deleted loses what is open at once", async () => {
  const { key: bobs } = await operator.users.create({ name: "bob" })
  const holder = await served.core.keys.find(bobs)
  await operator.users.remove("bob")
  await until("it is revoked", () => holder?.revoked.aborted === true, { deadlineMs: 1000 })
})
