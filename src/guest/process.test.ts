/** Processes of generation 3: the vectors of both languages, and a client's stream with a played guest. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { OutputChunk } from "@bhatti/contract/guest"
import vectors from "../../protocol/vectors.json"
import { FakeGuest, failure } from "../../test/support/fake-guest.ts"
import { Output } from "./flow.ts"
import { channels, encodeData, WireError } from "./frame.ts"
import { type Guest, openGuest } from "./guest.ts"
import { parseResult } from "./message.ts"
import {
  parseAnswer,
  parseAttached,
  parseEnd,
  parseInputTaken,
  parseOutcome,
  parseShow,
  parseSkipped,
  parseStartedDetached,
  processRequests,
  readProcesses,
} from "./process-message.ts"

let directory: string
let fake: FakeGuest
let guest: Guest
const deadline = { deadlineMs: 2000 }
const tty = { rows: 24, cols: 80 }
const from = { stdout: 7, stderr: 9 }

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "bhatti-process-"))
  fake = new FakeGuest(directory)
  guest = await openGuest({ socketPath: fake.socketPath })
  await fake.greet(3)
  await guest.ready
})
afterEach(() => {
  guest.close()
  fake.stop()
  rmSync(directory, { recursive: true })
})

test("a guest cannot make the host keep a piece for each gap that it tells of", () => {
  const output = new Output({
    toChunk: (_, bytes) => bytes,
    giveBack: () => undefined,
    withinDeadline: (promise) => promise,
    region: undefined,
    onUnreadable: () => undefined,
  })
  const flood = (put: () => void) => {
    for (let count = 0; count < 5000; count++) put()
  }
  const gapAndByte = () => {
    output.skip(channels.stdout, 1)
    output.put(channels.stdout, new Uint8Array(1))
  }
  expect(() => flood(gapAndByte)).toThrow(WireError)
  expect(() => flood(() => output.insert(channels.stdout, new Uint8Array(1)))).toThrow(WireError)
})

test("text that a terminal would obey is no signal, author or id", () => {
  const ended = { exit_code: 137, signal: "KILL", reason: "signal", by: "kernel", detail: null }
  expect(parseEnd(ended)).toMatchObject({ signal: "KILL", by: "kernel" })
  for (const text of ["\u001b]52;c;aGk=\u0007", "two words", "x".repeat(33)]) {
    expect(() => parseEnd({ ...ended, signal: text })).toThrow(WireError)
    expect(() => parseEnd({ ...ended, by: text })).toThrow(WireError)
  }
})

test("requests are the vectors", () => {
  const everything = {
    ...{ argv: ["sh", "-c", "echo"], env: { A: "b" }, cwd: "/tmp", user: "root", stdin: true },
    ...{ tty: { ...tty, term: "xterm" }, name: "init", key: "0c9", elapsedMs: 1500, from },
    ...{
      onDisconnect: "keep" as const,
      graceMs: 30_000,
      retainMs: 60_000,
      ringBytes: 65_536,
      timeoutMs: 1000,
    },
  }
  const made: Record<string, unknown> = {
    "start with everything": processRequests.start(everything, { attach: false }),
    attach: processRequests.attach({ process: "s1", mode: "drive", tty, writer: "c0ffee" }),
    "watch from an offset": processRequests.attach({ process: "p1", mode: "watch", from, follow: false }),
    "watch from a time": processRequests.attach({
      process: "p1",
      mode: "watch",
      sinceMs: 60_000,
      follow: true,
    }),
    "list processes": processRequests.list(),
    "get a process": processRequests.get("init"),
    "wait for a process": processRequests.wait("p1"),
    "signal a process": processRequests.signal("p1", { signal: "TERM", scope: "session", by: "stop" }),
    "write to a process": processRequests.input("p1", { at: 5, close: true }),
    "resize a process": processRequests.resize("s1", { rows: 50, cols: 132 }),
    "forget a process": processRequests.forget("p1"),
  }
  const named = new Map<string, unknown>(vectors.processRequests.map(({ name, json }) => [name, json]))
  for (const [name, request] of Object.entries(made))
    expect(JSON.parse(JSON.stringify(request))).toEqual(named.get(name))
})

test("messages and results are understood", () => {
  const message = (name: string) =>
    Buffer.from(vectors.processMessages.find((vector) => vector.name === name)?.text ?? "")
  const result = (name: string) => {
    const text = vectors.processResults.find((vector) => vector.name === name)?.text ?? ""
    const parsed = parseResult(Buffer.from(text))
    return parsed.kind === "ok" ? parsed.value : parsed.error
  }
  expect(parseAttached(message("a process runs"))).toMatchObject({ id: "p12", isNew: true, input: 0 })
  expect(parseAttached(message("a process had run"))).toMatchObject({
    id: "s3",
    from: { stdout: 7 },
    input: 12,
    written: 5,
  })
  expect(parseSkipped(message("output was skipped"))).toEqual({ stdout: 5, stderr: 0 })
  expect(parseShow(message("text for the terminal"))).toContain("\x1b[r")
  const list = readProcesses()
  expect(list.onMessage?.(message("processes"))).toBe(true)
  expect(list.parse({}).map(({ id, ended }) => [id, ended?.reason])).toEqual([
    ["p12", undefined],
    ["s3", "time_limit"],
  ])
  expect(parseStartedDetached(result("started"))).toMatchObject({ isNew: true, process: { id: "p12" } })
  expect(parseAnswer(result("found"))).toMatchObject({ id: "s3", endedUnixMs: 1_700_000_001_000 })
  expect(parseOutcome(result("left"))).toEqual({ state: "left" })
  expect(parseOutcome(result("taken over"))).toEqual({ state: "taken_over" })
  expect(parseOutcome(result("ended"))).toMatchObject({ ended: { exitCode: 137, reason: "time_limit" } })
  expect(parseInputTaken(result("input was taken"))).toEqual({ input: 5 })
  expect(result("a key was used")).toMatchObject({ code: "conflict", reason: "key_reused" })
})

test("a client gets its output with what it missed, and text that is none", async () => {
  const client = guest.processes.attach({ process: "p12", mode: "watch" })
  const { stream } = await fake.opened()
  for (const [name, text] of [
    ["a process runs", undefined],
    ["output was skipped", "after"],
    ["text for the terminal", undefined],
  ] as const) {
    const found = vectors.processMessages.find((vector) => vector.name === name)
    fake.message(stream, JSON.parse(found?.text ?? "{}"))
    if (text) fake.send(encodeData(stream, 1, Buffer.from(text)))
  }
  fake.close(stream, { ok: { state: "left" } })
  expect(await client.attached).toMatchObject({ id: "p12", pid: 123 })
  const chunks: OutputChunk[] = []
  for await (const chunk of client.output) chunks.push(chunk)
  expect(chunks.map(({ bytes, ...rest }) => [Buffer.from(bytes).toString(), rest])).toEqual([
    ["after", { channel: "stdout", skipped: 5 }],
    ["\x1b7\x1b[r\x1b8", { channel: "stdout", isExtra: true }],
  ])
  expect(await client.result).toEqual({ state: "left" })
})

test("what a client missed at the end is told without bytes that follow", async () => {
  const client = guest.processes.attach({ process: "p12", mode: "watch" })
  const { stream } = await fake.opened()
  fake.message(stream, JSON.parse(vectors.processMessages[0]?.text ?? "{}"))
  fake.message(stream, { skipped: { stdout: 5, stderr: 7 } })
  fake.close(stream, { ok: { state: "left" } })
  const chunks: OutputChunk[] = []
  for await (const chunk of client.output) chunks.push(chunk)
  expect(chunks).toEqual([
    { channel: "stdout", bytes: new Uint8Array(), skipped: 5 },
    { channel: "stderr", bytes: new Uint8Array(), skipped: 7 },
  ])
})

test("a list of processes holds a bounded number of bytes, and its texts are cut", () => {
  const vector = vectors.processMessages.find(({ name }) => name === "processes")
  const [record] = JSON.parse(vector?.text ?? "{}").processes
  const message = (fields: object) => Buffer.from(JSON.stringify({ processes: [{ ...record, ...fields }] }))
  const list = readProcesses()
  list.onMessage?.(message({ user: "u".repeat(100_000), argv: ["a", "b".repeat(100_000), "c"] }))
  const [read] = list.parse({})
  expect(read?.user.length).toBe(4096)
  expect(read?.argv.join("").length).toBe(4096)
  const large = message({ cwd: "/".repeat(60_000) })
  expect(() => {
    for (let count = 0; count < 200; count++) list.onMessage?.(large)
  }).toThrow("cannot be read")
})

test("a kill waits until the command runs, and names its sender", async () => {
  const process = guest.processes.start({ argv: ["sleep"], onDisconnect: "kill" })
  process.kill("client")
  const { stream } = await fake.opened()
  fake.message(stream, JSON.parse(vectors.processMessages[0]?.text ?? "{}"))
  const { type, payload } = await fake.frame()
  expect([type, JSON.parse(payload.toString())]).toEqual([
    "message",
    { signal: "KILL", scope: "session", by: "client" },
  ])
  process.leave()
  expect((await fake.frame()).type).toBe("close")
})

test("an earlier agent is refused what it cannot do, with the next step", async () => {
  guest.close()
  fake.stop()
  fake = new FakeGuest(directory)
  guest = await openGuest({ socketPath: fake.socketPath })
  await fake.greet(2)
  await guest.ready
  const { processes } = guest
  const sent = processes.start({ argv: ["true"], key: "k", elapsedMs: 10, onDisconnect: "kill" })
  for (const refused of [
    sent.result,
    processes.startDetached({ argv: ["true"], onDisconnect: "keep" }, deadline),
    processes.attach({ process: "s1", mode: "watch" }).result,
    processes.input("s1", {}).result,
  ])
    expect(await failure(refused)).toMatchObject({
      code: "unavailable",
      retryable: false,
      hint: expect.stringContaining("restart the sandbox"),
    })
})
