/** Ends: their reason in the answer, in the events, and in `why` after the sandbox is gone. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { LossReason } from "@bhatti/contract/errors"
import type { SandboxId } from "@bhatti/contract/ids"
import type { Why } from "@bhatti/contract/sandbox"
import { saveAll } from "../../src/core/shutdown.ts"
import type { FakeHost } from "../support/fake-host.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const why = async (name: string) => (await own.call("GET", `/sandboxes/${name}/why`)).body as Why

test("why of a destroyed sandbox tells who destroyed it and its last ends, by name and by id", async () => {
  const { id } = (await own.call("GET", "/sandboxes/dev")).body as { id: string }
  await dies({})()
  await until("it is cold", async () => (await why("dev")).thermal === "cold")
  await own.call("DELETE", "/sandboxes/dev")
  for (const name of ["dev", id]) {
    const told = await why(name)
    expect(told).toMatchObject({ thermal: null, reason: "it was destroyed by alice" })
    expect(Date.parse(told.destroyed_at ?? "")).not.toBeNaN()
    expect(told.ends.map(({ type }) => type)).toEqual(["sandbox.ended", "sandbox.destroyed"])
  }
})

test("an hour later and 89 days later why has the ends of a destroyed sandbox, after 90 days it knows none", async () => {
  const ended = { exitCode: 137, signal: "KILL", reason: "signal", by: "guest", detail: null } as const
  own.host.endAbnormally({ process: "p12", name: null, program: "make", pid: 412, ended })
  await own.call("DELETE", "/sandboxes/dev")
  const hour = 3_600_000
  for (const hours of [1, 89 * 24]) {
    await own.core.events.flush()
    await own.core.store.events.prune(Date.now() + hours * hour)
    expect((await why("dev")).ends.map(({ type }) => type)).toEqual(["process.ended", "sandbox.destroyed"])
  }
  await own.core.store.events.prune(Date.now() + 91 * 24 * hour)
  expect((await own.call("GET", "/sandboxes/dev/why")).status).toBe(404)
})

test("a new sandbox with the name of a destroyed one is not taken for it", async () => {
  await own.call("DELETE", "/sandboxes/dev")
  await own.call("POST", "/sandboxes", { name: "dev" })
  expect(await why("dev")).toMatchObject({ thermal: "hot", destroyed_at: null, ends: [] })
})

test("why does not tell of another user's sandbox, nor of one that never was", async () => {
  await own.call("DELETE", "/sandboxes/dev")
  const { key } = await own.core.store.users.create({ name: "eve" })
  expect((await own.call("GET", "/sandboxes/dev/why", undefined, key)).status).toBe(404)
  expect((await own.call("GET", "/sandboxes/never/why")).status).toBe(404)
})

test("a kill for memory in the guest is an event with program and size, whichever process it was", async () => {
  const sizes = { anonKib: 421_888, fileKib: 4, shmemKib: 8, memoryKib: 481_280 }
  const kill = { pid: 412, name: "python3", session: 0, inCgroup: false, unixMs: 0, ...sizes }
  own.host.killForMemory(kill)
  const expected = {
    type: "process.out_of_memory",
    sandbox_name: "dev",
    meta: { by: "kernel", cause: "out_of_memory", program: "python3", pid: 412, memory_mb: 412 },
  }
  expect((await own.call("GET", "/events?type=process.")).body).toMatchObject([expected])
  expect((await why("dev")).ends).toMatchObject([expected])
})

test("a guest that reports one kill after the other fills nobody's events", async () => {
  const sizes = { anonKib: 1, fileKib: 1, shmemKib: 1, memoryKib: 1 }
  for (let pid = 1; pid < 2000; pid++)
    own.host.killForMemory({ pid, name: "x", session: 0, inCgroup: false, unixMs: 0, ...sizes })
  const events = (await own.call("GET", "/events?type=process.&limit=1000")).body as unknown[]
  expect(events.length).toBeLessThan(250)
})

test("an end that was not the process's own is an event with cause, sender and process", async () => {
  const ended = { exitCode: 137, signal: "KILL", reason: "time_limit", by: "agent", detail: null } as const
  own.host.endAbnormally({ process: "p12", name: null, program: "make", pid: 412, ended })
  const meta = { by: "agent", cause: "time_limit", reason: "its time limit was over", process: "p12" }
  expect((await why("dev")).ends).toMatchObject([
    { type: "process.ended", meta: { ...meta, program: "make", pid: 412, exit_code: 137, signal: "KILL" } },
  ])
})

/** Begins a command that ends by no signal of its own; `first` resolves when it runs. */
async function running(accept?: string, more: object = {}): Promise<{ answer: Promise<Answer> }> {
  const before = own.host.processes.length
  const body = { cmd: ["ready"], ...more }
  const headers = { "content-type": "application/json", authorization: `Bearer ${own.key}` }
  const request = fetch(new URL("/sandboxes/dev/exec", own.url), {
    method: "POST",
    headers: accept === undefined ? headers : { ...headers, accept },
    body: JSON.stringify(body),
  })
  const answer = request.then(async (reply) => ({ status: reply.status, text: await reply.text() }))
  await until("it runs", () => own.host.processes.length > before)
  return { answer }
}
type Answer = { status: number; text: string }

const dies = (fate: Partial<Pick<FakeHost, "isOutOfMemory" | "end">>) => async () => {
  const { id } = (await own.call("GET", "/sandboxes/dev")).body as { id: string }
  Object.assign(own.host, fate)
  own.host.running.clear()
  own.core.guests.get(id as SandboxId)?.close()
}
const panic = "[    1.0] Kernel panic - not syncing: sysrq triggered crash\r\n"
const losses: [LossReason, string, () => Promise<unknown>][] = [
  ["stopped", "user", () => own.call("POST", "/sandboxes/dev/stop")],
  ["destroyed", "user", () => own.call("DELETE", "/sandboxes/dev")],
  ["restarted", "user", () => own.call("POST", "/sandboxes/dev/restart")],
  ["daemon_stopped", "daemon", () => saveAll(own.core, new AbortController().signal)],
  ["daemon_stopped", "daemon", async () => own.core.endings.stopDaemon()],
  ["machine_killed", "daemon", dies({})],
  ["host_out_of_memory", "daemon", dies({ isOutOfMemory: true })],
  ["guest_poweroff", "guest", dies({ end: { how: "poweroff", console: "" } })],
  ["guest_panic", "guest", dies({ end: { how: "panic", console: panic } })],
  ["agent_failed", "guest", dies({ end: { how: "agent", console: "" } })],
  ["init_ended", "guest", dies({ end: { how: "init", console: "" } })],
]

test.each(losses)(
  "%s: the reply, the stream and the event of a running command have it",
  async (cause, by, act) => {
    const buffered = await running()
    const streamed = await running("application/x-ndjson")
    await act()
    const reply = await buffered.answer
    expect(reply.status).toBe(503)
    const told = { code: "unavailable", reason: cause, subject: { kind: "ended_sandbox", sandbox: "dev" } }
    expect(JSON.parse(reply.text)).toMatchObject({ ...told, retryable: false })
    const lines = (await streamed.answer).text.trim().split("\n")
    expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ type: "error", ...told })
    const events = (await own.call("GET", "/events?type=exec.")).body
    const event = { type: "exec.failed", sandbox_name: "dev", meta: { cause, by, program: "ready" } }
    expect(events).toMatchObject([event, event])
    if (by === "user") expect(events).toMatchObject(Array(2).fill({ meta: { user: "alice" } }))
  },
)

test("who waits for the end of a process hears why there is none", async () => {
  const started = await own.call("POST", "/sandboxes/dev/processes", { cmd: ["ready"] })
  const { process_id } = started.body as { process_id: string }
  const before = own.host.ongoing.commands
  const waiting = own.call("GET", `/sandboxes/dev/processes/${process_id}/wait`)
  await until("it waits", () => own.host.ongoing.commands > before)
  await own.call("DELETE", "/sandboxes/dev")
  expect((await waiting).body).toMatchObject({
    code: "unavailable",
    message: 'the sandbox "dev" was destroyed while its process was waited for',
    reason: "destroyed",
  })
})

test("a guest that names a sender of its own invention is taken for the sender", async () => {
  const ended = { exitCode: 137, signal: "KILL", reason: "signal", by: "operator", detail: null } as const
  own.host.endAbnormally({ process: "p1", name: null, program: "make", pid: 7, ended })
  expect((await why("dev")).ends).toMatchObject([{ meta: { by: "guest" } }])
})

test.each([
  ["PUT", "/sandboxes/dev/files?path=/x", "uploads"],
  ["PUT", "/sandboxes/dev/archive?path=/x", "uploads"],
  ["GET", "/sandboxes/dev/files?path=/x", "downloads"],
] as const)(
  "%s %s: a transfer that an end interrupts is answered with its reason",
  async (method, path, what) => {
    await own.call("PUT", "/sandboxes/dev/files?path=/x", "text")
    for (const step of ["write", "unpack"] as const) own.host.hold(step)
    own.host.download = () => silent()
    const request = own.call(method, path, method === "PUT" ? "text" : undefined)
    await until("it is under way", () => own.host.ongoing[what] > 0)
    await own.call("DELETE", "/sandboxes/dev")
    expect((await request).body).toMatchObject({
      code: "unavailable",
      message: 'the sandbox "dev" was destroyed during the transfer',
      reason: "destroyed",
    })
  },
)

/** A file of which nothing comes. */
async function* silent(): AsyncGenerator<Uint8Array> {
  await new Promise(() => {})
}

test("a stop tells a command's client that it goes on, and for how long without it", async () => {
  const keyed = await running(undefined, { key: "k", grace_sec: 30 })
  const unkeyed = await running()
  const started = await own.call("POST", "/sandboxes/dev/processes", { cmd: ["ready"] })
  const { process_id } = started.body as { process_id: string }
  const waiting = own.call("GET", `/sandboxes/dev/processes/${process_id}/wait`)
  await until("it waits", () => own.host.ongoing.commands >= 3)
  await own.call("POST", "/sandboxes/dev/stop")
  const hint = "the command goes on when the sandbox is next used, for 30 s without its client"
  expect(JSON.parse((await keyed.answer).text)).toMatchObject({ reason: "stopped", hint })
  expect(JSON.parse((await unkeyed.answer).text)).toMatchObject({ reason: "stopped", hint: null })
  expect((await waiting).body).toMatchObject({
    reason: "stopped",
    hint: "it is kept, and goes on when the sandbox is next used",
  })
})
