/**
 * Requests at the same moment, on real machines: wakes, creates of one name, and destroys in the middle of
 * everything.
 */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import type { Sandbox, Why } from "@bhatti/contract/sandbox"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { nameOfMachine, type Reply, Requests, tapsOf } from "../support/requests.ts"

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ config: "warm_after: 0\n" })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

const seenIds = new Set<string>()
/** Each test ends with nothing left. */
afterEach(async () => {
  for (const { id, name } of await requests.list()) {
    seenIds.add(id)
    expect((await requests.destroy(name)).status).toBe(200)
  }
  expect([await requests.leftovers(), own.machines(), tapsOf([...seenIds])]).toEqual([[], [], []])
}, 120_000)

async function make(name: string): Promise<Sandbox> {
  const { status, body } = await requests.create(name)
  expect(status).toBe(201)
  const sandbox = body as Sandbox
  seenIds.add(sandbox.id)
  return sandbox
}

const server = `
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")
HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
`

/** A server in the sandbox with a public name; gives what asks it. */
async function publishServer(name: string): Promise<() => Promise<{ status: number; body: string }>> {
  const start = "cat >/tmp/server.py; setsid python3 /tmp/server.py </dev/null >/dev/null 2>&1 &"
  const started = await own.bhatti(["exec", "-i", name, "--", "sh", "-c", start], { stdin: server })
  expect(started.exitCode).toBe(0)
  const published = await requests.send("POST", `/sandboxes/${name}/publish`, { port: 8000, alias: name })
  expect(published.status).toBe(201)
  const host = `${name}.localhost:${new URL(own.url).port}`
  const ask = async () => {
    const response = await fetch(own.url, { headers: { host }, keepalive: false })
    return { status: response.status, body: await response.text() }
  }
  await until("the server answers", async () => (await ask()).status === 200)
  return ask
}

test.each(["cold", "warm"] as const)(
  "twelve wakes of a %s sandbox at once, four commands, four published requests and four starts: one machine, twelve successes",
  async (from) => {
    const { id } = await make(from)
    const ask = await publishServer(from)
    await requests.output(from, "echo kept > /dev/shm/nonce")
    for (let round = 0; round < 3; round++) {
      if (from === "cold") expect((await requests.stop(from)).status).toBe(200)
      else await letPause(from)
      const ran: Promise<unknown>[] = []
      for (let index = 0; index < 4; index++) {
        ran.push(
          requests.output(from, "cat /dev/shm/nonce"),
          ask().then(({ status, body }) => [status, body]),
          requests.start(from).then(({ status }) => status),
        )
      }
      const expected = Array.from({ length: 4 }, () => ["kept\n", [200, "served"], 200]).flat()
      expect(await Promise.all(ran)).toEqual(expected)
      expect(own.machines().map(nameOfMachine)).toEqual([id])
    }
    const wakes = (await requests.send("GET", `/events?type=thermal.wake&sandbox=${from}`)).body
    expect(wakes).toHaveLength(3)
  },
  180_000,
)

/** By the thermal loop, which nothing asks for. */
async function letPause(name: string): Promise<void> {
  const edit = async (warmAfterSec: number) =>
    expect((await requests.send("PATCH", `/sandboxes/${name}`, { warm_after: warmAfterSec })).status).toBe(
      200,
    )
  await edit(1)
  const isWarm = async () => (await requests.show(name))?.thermal === "warm"
  await until(`${name} is paused`, isWarm, { deadlineMs: 60_000 })
  await edit(0)
}

test("fifty creates with one name at once: exactly one comes to be, and the others leave nothing", async () => {
  await make("before")
  const replies = await Promise.all(Array.from({ length: 50 }, () => requests.create("same")))
  const count = (status: number) => replies.filter((reply) => reply.status === status).length
  expect([count(201), count(409)]).toEqual([1, 49])
  expect((await requests.list()).map(({ name }) => name)).toEqual(["before", "same"])
  expect(await requests.leftovers()).toEqual([])
  expect(await requests.output("same", "hostname")).toBe("same\n")
}, 180_000)

function isSaving(id: string): boolean {
  const names = [
    ...readdirSync(join(own.dataDir, "sandboxes", id)),
    ...readdirSync(join(own.dataDir, "snapshots")),
  ]
  return names.some((name) => name.endsWith(".part") || name.startsWith("tmp-"))
}

/** Calls that were cut off by a destroy are told so, as something that a caller can act on. */
const cutOff = [404, 409, 503]

describe("a destroy wins", () => {
  /** Destroys it in the middle; gives what the interrupted calls were answered. */
  async function destroyDuring(name: string, going: Promise<Reply>[]): Promise<number[]> {
    const startedAt = performance.now()
    const { status, body } = await requests.destroy(name)
    const ms = Math.round(performance.now() - startedAt)
    expect([status, body]).toEqual([200, { status: "destroyed" }])
    console.log(`destroyed after ${ms} ms`)
    expect(ms).toBeLessThan(20_000 * patience)
    const replies = await Promise.all(going)
    expect(await requests.show(name)).toBeUndefined()
    expect([await requests.leftovers(), tapsOf([...seenIds])]).toEqual([[], []])
    return replies.map((reply) => reply.status)
  }

  test("during a create, however far that is", async () => {
    for (let round = 0; round < 6; round++) {
      const creating = requests.create("dev")
      await until("its name is taken", async () => {
        const found = await requests.show("dev")
        if (found) seenIds.add(found.id)
        return found !== undefined
      })
      // Each time a little further.
      for (let step = 0; step < round; step++) await requests.list()
      const [status] = await destroyDuring("dev", [creating])
      expect([201, ...cutOff]).toContain(status ?? 0)
    }
  }, 180_000)

  test("during a wake from memory and from disk", async () => {
    for (const loses of [false, true]) {
      const { id } = await make("dev")
      expect((await requests.stop("dev")).status).toBe(200)
      if (loses) rmSync(join(own.dataDir, "sandboxes", id, "snapshot"), { recursive: true })
      const waking = [requests.start("dev"), requests.exec("dev", "true")]
      await until("it wakes", async () => (await requests.show("dev"))?.status !== "stopped")
      for (const status of await destroyDuring("dev", waking)) expect([200, ...cutOff]).toContain(status)
    }
  }, 180_000)

  test("during a stop, a copy and a snapshot", async () => {
    const about: Record<string, () => Promise<Reply>> = {
      stop: () => requests.stop("dev"),
      copy: () => requests.create("copy", { from: "dev" }),
      snapshot: () => requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }),
    }
    for (const [what, start] of Object.entries(about)) {
      const { id } = await make("dev")
      await requests.output("dev", "head -c 60000000 /dev/urandom > /dev/shm/big")
      let isAnswered = false
      const going = start().finally(() => {
        isAnswered = true
      })
      await until(`${what} is being saved`, () => isAnswered || isSaving(id))
      const [status] = await destroyDuring("dev", [going])
      expect([what, [200, 201, ...cutOff].includes(status ?? 0)]).toEqual([what, true])
      if (await requests.show("copy")) expect(await requests.output("copy", "hostname")).toBe("copy\n")
      await requests.destroy("copy")
      await requests.send("DELETE", "/snapshots/kept")
      expect((await requests.send("GET", "/snapshots")).body).toEqual([])
      expect(readdirSync(join(own.dataDir, "snapshots"))).toEqual([])
    }
  }, 180_000)

  test("during the start of a copy, over the copy", async () => {
    await make("dev")
    for (let round = 0; round < 4; round++) {
      const copying = requests.create("copy", { from: "dev" })
      await until("its name is taken", async () => (await requests.show("copy")) !== undefined)
      for (let step = 0; step < round * 3; step++) await requests.list()
      const [status] = await destroyDuring("copy", [copying])
      expect([201, ...cutOff]).toContain(status ?? 0)
      expect(await requests.output("dev", "hostname")).toBe("dev\n")
    }
  }, 180_000)

  test("during a command, an upload and a published stream", async () => {
    await make("dev")
    const ask = await publishServer("dev")
    const running = requests.exec("dev", "touch /tmp/running; sleep 1000")
    const isRunning = async () => (await requests.output("dev", "ls /tmp")).includes("running")
    await until("the command runs", isRunning)

    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
    const writer = writable.getWriter()
    const uploading = fetch(`${own.url}/sandboxes/dev/files?path=/tmp/upload`, {
      method: "PUT",
      headers: { authorization: `Bearer ${own.key}` },
      body: readable,
    }).then(
      async (response) => ({ status: response.status, body: await response.text() }),
      // A connection that is closed while it is written to is an answer as well.
      () => ({ status: 503, body: "" }),
    )
    await writer.write(new Uint8Array(1_000_000))
    await until("the upload is going on", async () => {
      const { body } = await requests.send("GET", "/sandboxes/dev/why")
      return (body as Why).open_streams === 2
    })

    const statuses = await destroyDuring("dev", [running, uploading])
    for (const status of statuses) expect(cutOff).toContain(status)
    await writer.close().catch(() => undefined)
    expect((await ask()).status).toBeGreaterThanOrEqual(400)
  }, 180_000)

  test("of several at once one has done it, and its address is given to somebody else only once", async () => {
    for (let round = 0; round < 3; round++) {
      await make("dev")
      const replies = await Promise.all(Array.from({ length: 4 }, () => requests.destroy("dev")))
      for (const { status } of replies) expect([200, 404]).toContain(status)
      expect(replies.some(({ status }) => status === 200)).toBe(true)
      const made = await Promise.all(["one", "two", "three"].map(make))
      expect(new Set(made.map(({ ip }) => ip)).size).toBe(3)
      await Promise.all(made.map(({ name }) => requests.destroy(name)))
    }
  }, 180_000)
})
