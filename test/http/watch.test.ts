/** Watches of directories over HTTP and through the client, on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import type { FileEventLine } from "@bhatti/contract/file"
import { type Client, connect, type FileChange } from "@bhatti/sdk/client"
import { answering } from "../support/fake-host.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let client: Client
/** Breaks the client's connections. */
let cut: AbortController
beforeEach(async () => {
  own = await openHttpApp()
  cut = new AbortController()
  client = connect({
    url: own.url,
    token: own.key,
    fetch: (url, init) =>
      fetch(url, { ...init, signal: AbortSignal.any([cut.signal, ...(init.signal ? [init.signal] : [])]) }),
  })
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const watches = "/sandboxes/dev/files/watches"
const theState = async () => (await own.core.store.sandboxes.listOnHost())[0]?.state.kind

function theWatch() {
  const [only, ...others] = own.host.watches()
  if (!only || others.length > 0) throw new Error(`${others.length} more watches`)
  return only
}

/** A loss has no path of its own. */
const briefly = (change: FileChange) =>
  change.type === "watching" || change.type === "lost"
    ? { type: change.type }
    : { type: change.type, path: change.path, sequence: change.sequence }

/** Lines of the stream. Closing it ends the request. */
async function follow(path: string) {
  const left = new AbortController()
  const response = await fetch(`${own.url}${path}`, {
    headers: { authorization: `Bearer ${own.key}`, accept: "application/x-ndjson" },
    signal: left.signal,
  })
  const reader = response.body?.getReader()
  let rest = ""
  return {
    response,
    close: () => left.abort(),
    async next(): Promise<FileEventLine | undefined> {
      for (;;) {
        const end = rest.indexOf("\n")
        if (end < 0) {
          const { value } = (await reader?.read()) ?? {}
          if (!value) return undefined
          rest += Buffer.from(value).toString()
        } else {
          const line = rest.slice(0, end)
          rest = rest.slice(end + 1)
          if (line !== "") return JSON.parse(line)
        }
      }
    },
  }
}

test("a stream tells what happens, and its watch is removed when its reader leaves", async () => {
  const stream = await follow("/sandboxes/dev/files/watch?path=/workspace&recursive=true")
  expect(stream.response.headers.get("content-type")).toBe("application/x-ndjson")
  expect(await stream.next()).toMatchObject({ type: "watching" })
  expect(theWatch()).toMatchObject({ path: "/workspace", recursive: true })
  theWatch().tell({ type: "create", path: "a", isDirectory: true })
  theWatch().tell({ type: "rename", path: "a", to: "b", isDirectory: true })
  expect([await stream.next(), await stream.next()]).toEqual([
    { type: "create", path: "a", to: null, is_dir: true, reason: null, sequence: 1 },
    { type: "rename", path: "a", to: "b", is_dir: true, reason: null, sequence: 2 },
  ])
  stream.close()
  await until("the watch is removed", () => own.host.watches().length === 0)
})

test("what cannot be watched is refused before a stream begins", async () => {
  for (const [path, status] of [
    ["/sandboxes/dev/files/watch?path=/none", 404],
    ["/sandboxes/dev/files/watch", 400],
    ["/sandboxes/other/files/watch?path=/workspace", 404],
    [`${watches}/w1`, 404],
  ] as const)
    expect((await follow(path)).response.status).toBe(status)
  expect(own.host.watches()).toEqual([])
})

test("an agent that cannot watch is told with what to do", async () => {
  const [[id, guest] = []] = own.core.guests
  if (!id || !guest) throw new Error("no guest")
  answering(guest, {
    openWatch: () => {
      throw new AppError("unavailable", 'this agent has no operation "file_watch"')
    },
  })
  const { status, body } = await own.call("POST", watches, { path: "/workspace" })
  expect([status, body]).toMatchObject([503, { hint: expect.stringContaining("until it is restarted") }])
})

test("a stream goes on after a stop and a wake, and neither wakes the sandbox nor holds up its stop", async () => {
  const stream = await follow("/sandboxes/dev/files/watch?path=/workspace")
  await stream.next()
  expect((await own.call("POST", "/sandboxes/dev/stop")).status).toBe(200)
  expect(await theState()).toBe("cold")
  const next = stream.next()
  await own.call("POST", "/sandboxes/dev/start")
  theWatch().tell({ path: "after" })
  expect(await next).toMatchObject({ type: "create", path: "after" })
  const wakes = await own.call("GET", "/events?sandbox=dev&type=thermal.wake")
  expect(wakes.body).toMatchObject([{ meta: { by: expect.not.stringContaining("watch") } }])
  stream.close()
})

test("after a boot a stream says that events were lost, and goes on with a new watch", async () => {
  const stream = await follow("/sandboxes/dev/files/watch?path=/workspace")
  await stream.next()
  await own.call("POST", "/sandboxes/dev/restart")
  expect(await stream.next()).toMatchObject({ type: "lost", reason: "the sandbox was booted anew" })
  expect(await stream.next()).toMatchObject({ type: "watching" })
  theWatch().tell({ path: "after" })
  expect(await stream.next()).toMatchObject({ path: "after" })
  await own.call("DELETE", "/sandboxes/dev")
  expect(await stream.next()).toEqual({ type: "end", reason: "the sandbox was destroyed" })
  expect(await stream.next()).toBeUndefined()
})

test("a poller gets every event once it confirms the last, and the same ones if it does not", async () => {
  const { status, body } = await own.call("POST", watches, { path: "/workspace" })
  expect([status, body]).toMatchObject([201, { path: "/workspace", recursive: false }])
  const { watch } = body as { watch: string }
  const poll = async (after: number) => (await own.call("GET", `${watches}/${watch}?after=${after}`)).body
  expect(await poll(0)).toEqual({ events: [], next: 0, ended: null })
  theWatch().tell({ path: "a" })
  for (const _ of [1, 2])
    expect(await poll(0)).toMatchObject({ events: [{ path: "a", sequence: 1 }], next: 1 })
  theWatch().tell({ path: "b" })
  expect(await poll(1)).toMatchObject({ events: [{ path: "b", sequence: 2 }], next: 2 })
  theWatch().end("the directory was removed")
  expect(await poll(2)).toMatchObject({ events: [], ended: "the directory was removed" })
  const stream = await follow(`${watches}/${watch}?after=2`)
  expect([await stream.next(), await stream.next()]).toMatchObject([
    { type: "watching" },
    { type: "end", reason: "the directory was removed" },
  ])
  expect((await own.call("DELETE", `${watches}/${watch}`)).status).toBe(200)
  expect((await own.call("GET", `${watches}/${watch}`)).status).toBe(404)
})

test("the client goes on where it was after a lost connection, and after a boot with what was lost", async () => {
  const left = new AbortController()
  const changes = client.followFiles("dev", { path: "/workspace" }, { signal: left.signal })
  const next = async () => (await changes.next()).value as FileChange
  expect(await next()).toMatchObject({ type: "watching" })
  theWatch().tell({ path: "a" })
  expect(await next()).toMatchObject({ path: "a" })
  const waiting = next()
  const former = cut
  cut = new AbortController()
  former.abort(new Error("the connection was reset"))
  theWatch().tell({ path: "b" })
  // The daemon's end of the connection may have taken the event while the connection broke: then that is told.
  expect([{ type: "create", path: "b", sequence: 2 }, { type: "lost" }]).toContainEqual(
    briefly(await waiting),
  )
  const lost = next()
  await own.call("POST", "/sandboxes/dev/restart")
  expect(await lost).toMatchObject({ type: "lost" })
  const after = next()
  theWatch().tell({ path: "c" })
  expect(await after).toMatchObject({ path: "c" })
  const end = next().catch((error: unknown) => error)
  left.abort(new Error("left"))
  expect(await end).toBeInstanceOf(Error)
  await until("the watch is removed", () => own.host.watches().length === 0)
})
