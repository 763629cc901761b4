/** Processes over HTTP, on a fake host: kept without a client, found again by key, read from an offset. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import type { Process } from "@bhatti/contract/process"
import { systemClock } from "../../src/core/clock.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp

beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const of = (process: string, rest = "") => `/sandboxes/dev/processes/${process}${rest}`

async function start(body: Record<string, unknown>): Promise<Process> {
  const { status, body: process, text } = await own.call("POST", "/sandboxes/dev/processes", body)
  if (status !== 201) throw new Error(text)
  return process as Process
}

test("a process is started without a client, listed, waited for, read and forgotten", async () => {
  const { process_id: id, sandbox_id: sandboxId } = await start({ cmd: ["both"], name: "job" })
  const ended = await own.call("GET", of(id, "/wait"))
  expect(ended.body).toMatchObject({
    running: false,
    ended: { exit_code: 0, reason: "exited" },
    kind: "command",
  })
  const list = (await own.call("GET", "/sandboxes/dev/processes")).body
  expect(list).toMatchObject([
    { process_id: id, sandbox_id: sandboxId, name: "job", output: { stdout: { total: 12 } } },
  ])
  expect((await own.call("GET", "/sandboxes/dev/sessions")).body).toEqual([])
  const all = await own.call("GET", of("job", "/output"))
  expect(all.text).toBe("out 1\nout 2\n")
  expect([all.headers.get("x-bhatti-offset"), all.headers.get("x-bhatti-total")]).toEqual(["0", "12"])
  expect((await own.call("GET", of(id, "/output?stream=stderr"))).text).toBe("err 1\n")
  const part = await own.call("GET", of(id, "/output?offset=4&limit=3"))
  expect([part.text, part.headers.get("x-bhatti-offset")]).toEqual(["1\no", "4"])
  expect((await own.call("GET", of(id, "/output?offset=13"))).status).toBe(400)
  expect((await own.call("DELETE", of(id))).status).toBe(200)
  expect((await own.call("GET", of(id))).body).toMatchObject({
    code: "not_found",
    subject: { kind: "process", sandbox: "dev" },
  })
})

test("input comes from several requests, each byte once", async () => {
  const { process_id: id } = await start({ cmd: ["cat"], stdin: true })
  const write = async (text: string, query: string) => {
    const headers = { authorization: `Bearer ${own.key}`, "content-type": "application/octet-stream" }
    const reply = await fetch(own.url + of(id, `/input${query}`), { method: "POST", headers, body: text })
    return { status: reply.status, body: await reply.json() }
  }
  expect((await write("hello", "?at=0")).body).toEqual({ input: 5 })
  expect((await write("hello world", "?at=0")).body).toEqual({ input: 11 })
  expect((await write("later", "?at=20")).status).toBe(409)
  expect((await write("!", "?end=true")).body).toEqual({ input: 12 })
  await own.call("GET", of(id, "/wait"))
  expect((await own.call("GET", of(id, "/output"))).text).toBe("hello world!")
})

test("a signal has its sender, and a kill forgets", async () => {
  const { process_id: id } = await start({ cmd: ["sleep"] })
  expect((await own.call("GET", of(id, "/wait?timeout_sec=0.01"))).body).toMatchObject({ running: true })
  await own.call("POST", of(id, "/signal"), {})
  expect((await own.call("GET", of(id, "/wait"))).body).toMatchObject({
    ended: { exit_code: 143, signal: "TERM", reason: "signal", by: "client" },
  })
  const running = await start({ cmd: ["sleep"] })
  expect((await own.call("DELETE", of(running.process_id))).body).toMatchObject({ ended: { signal: "KILL" } })
  expect((await own.call("GET", "/sandboxes/dev/processes")).body).toMatchObject([{ process_id: id }])
})

test("a process that is forgotten with its end is removed all the same", async () => {
  const { process_id: id } = await start({ cmd: ["sleep"], retain_sec: 0 })
  expect(await own.call("DELETE", of(id))).toMatchObject({
    status: 200,
    body: { running: false, ended: { signal: "KILL", by: "client" } },
  })
  expect((await own.call("GET", "/sandboxes/dev/processes")).body).toEqual([])
})

test("input that no program takes ends with its client", async () => {
  const { process_id: id } = await start({ cmd: ["sleep"], stdin: true })
  const process = own.host.processes.at(-1)
  if (!process) throw new Error("no command runs")
  process.isInputStuck = true
  const leaving = new AbortController()
  const writing = fetch(own.url + of(id, "/input"), {
    method: "POST",
    headers: { authorization: `Bearer ${own.key}`, "content-type": "application/octet-stream" },
    body: "hello",
    signal: leaving.signal,
  })
  await until("it is typed", () => process.inputBytes === 5)
  leaving.abort()
  await writing.catch(() => undefined)
  await until("the input is given up", () => process.closedInputs > 0)
})

test("a command whose client has left while its sandbox woke is not started", async () => {
  await own.call("POST", "/sandboxes/dev/stop")
  const begin = own.host.machines.start.bind(own.host.machines)
  const { promise: held, resolve: release } = Promise.withResolvers<void>()
  let isWaking = false
  own.host.machines.start = async (...given) => {
    isWaking = true
    await held
    return begin(...given)
  }
  const leaving = new AbortController()
  const running = fetch(`${own.url}/sandboxes/dev/exec`, {
    method: "POST",
    headers: { authorization: `Bearer ${own.key}` },
    body: JSON.stringify({ cmd: ["sleep"] }),
    signal: leaving.signal,
  })
  await until("it wakes", () => isWaking)
  const connections = own.connections()
  const before = own.host.processes.length
  leaving.abort()
  await running.catch(() => undefined)
  await until("the daemon has noticed", () => own.connections() < connections)
  release()
  expect((await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })).status).toBe(200)
  expect(own.host.processes.slice(before).map(({ command }) => command.argv)).toEqual([["true"]])
})

test("a create tells the guest that its memory is the first, and a copy does not", async () => {
  expect(own.host.identities.at(-1)).toMatchObject({ isNew: true })
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  const before = own.host.identities.length
  expect((await own.call("POST", "/snapshots/kept/resume", { name: "copy" })).status).toBe(201)
  expect(own.host.identities.length).toBe(before + 1)
  expect(own.host.identities.at(-1)).not.toHaveProperty("isNew")
})

test("a start without a key that is not answered is not repeated, and one with a key may be", async () => {
  const { guests } = own.core
  const id = ((await own.call("GET", "/sandboxes/dev")).body as { id: string }).id
  const guest = guests.get(id as Parameters<typeof guests.get>[0])
  if (!guest) throw new Error("no guest")
  guest.processes.startDetached = async () => {
    throw new AppError("unavailable", "the guest did not answer in time")
  }
  const refused = (fields: object) =>
    own.call("POST", "/sandboxes/dev/processes", { cmd: ["sleep"], ...fields })
  expect((await refused({})).body).toMatchObject({
    code: "unavailable",
    retryable: false,
    hint: expect.stringContaining("look at its processes"),
  })
  expect((await refused({ key: "once" })).body).toMatchObject({ code: "unavailable", retryable: true })
})

test("the same key is the same process, and another command with it is refused", async () => {
  const first = await start({ cmd: ["sleep"], key: "once" })
  const again = await own.call("POST", "/sandboxes/dev/processes", {
    cmd: ["sleep"],
    key: "once",
    elapsed_ms: 10,
  })
  expect([again.status, (again.body as Process).process_id]).toEqual([200, first.process_id])
  const other = await own.call("POST", "/sandboxes/dev/processes", { cmd: ["true"], key: "once" })
  expect(other).toMatchObject({
    status: 409,
    body: { reason: "key_reused", hint: "use a new key for each command" },
  })
})

test("an exec with a key that was answered already has the same answer, and ran once", async () => {
  const before = own.host.processes.length
  const exec = (elapsed: number) =>
    own.call("POST", "/sandboxes/dev/exec", {
      cmd: ["count"],
      stdin: "12345",
      key: "once",
      elapsed_ms: elapsed,
    })
  const first = await exec(0)
  expect(first.body).toMatchObject({ exit_code: 0, stdout: "5\n" })
  expect((await exec(1000)).body).toEqual(first.body as object)
  expect(own.host.processes.length - before).toBe(1)
})

test("the time that a repeated command has waited for its sandbox counts as elapsed", async () => {
  let passedMs = 0
  const clock = { ...systemClock, nowMs: () => performance.now() + passedMs }
  await using app = await openHttpApp({ clock })
  await app.call("POST", "/sandboxes", { name: "dev" })
  const start = app.host.machines.start.bind(app.host.machines)
  app.host.machines.start = async (...given) => {
    passedMs += 4000
    return start(...given)
  }
  const elapsed = async (path: string, elapsedMs: number) => {
    await app.call("POST", "/sandboxes/dev/stop")
    const body = { cmd: ["true"], key: crypto.randomUUID(), elapsed_ms: elapsedMs }
    expect((await app.call("POST", path, body)).text).not.toContain("error")
    return app.host.processes.at(-1)?.command.elapsedMs
  }
  for (const path of ["/sandboxes/dev/exec", "/sandboxes/dev/processes"]) {
    const repeated = await elapsed(path, 1500)
    expect(repeated).toBeGreaterThanOrEqual(5500)
    expect(repeated).toBeLessThan(9500)
    expect(await elapsed(path, 0)).toBe(0)
  }
})

test("a repeated exec whose first output is not kept says so", async () => {
  const exec = async (accept: string, elapsed: number) => {
    const reply = await fetch(`${own.url}/sandboxes/dev/exec`, {
      method: "POST",
      headers: { authorization: `Bearer ${own.key}`, accept },
      body: JSON.stringify({ cmd: ["both"], key: "once", elapsed_ms: elapsed }),
    })
    return await reply.text()
  }
  expect(JSON.parse(await exec("application/json", 0))).toMatchObject({ truncated: false })
  const process = own.host.processes.at(-1)
  if (!process) throw new Error("no command ran")
  process.firstKept = { stdout: 6, stderr: 0 }
  const buffered = JSON.parse(await exec("application/json", 10))
  expect(buffered).toMatchObject({ stdout: "out 2\n", truncated: true })
  const lines = (await exec("application/x-ndjson", 20)).trim().split("\n")
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([
    { type: "error", code: "unavailable", retryable: false },
  ])
})

test("a kept process that was started in a terminal is a session too", async () => {
  const { process_id: id } = await start({ tty: { rows: 10, cols: 20 } })
  expect((await own.call("GET", "/sandboxes/dev/sessions")).body).toMatchObject([
    { session_id: id, tty: true },
  ])
  expect((await own.call("POST", of(id, "/resize"), { rows: 5, cols: 6 })).status).toBe(200)
  expect((await own.call("POST", "/sandboxes/dev/processes", {})).status).toBe(400)
})

test("a program that is not there is the same error for every kind of start", async () => {
  const missing = { code: "command_not_found", reason: "no_program" }
  const body = { cmd: ["nonsense"] }
  expect((await own.call("POST", "/sandboxes/dev/processes", body)).body).toMatchObject(missing)
  expect((await own.call("POST", "/sandboxes/dev/exec", body)).body).toMatchObject(missing)
})
