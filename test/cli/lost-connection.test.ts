/** A command whose connection is cut goes on: it ran once, and every byte came once and in order. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import { connect } from "@bhatti/sdk/client"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { CuttableProxy } from "../support/cuttable-proxy.ts"
import { Daemon } from "./daemon.ts"
import { environment, program, until } from "./program.ts"

let daemon: Daemon
let proxy: CuttableProxy
const states: string[] = []

beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev")
  proxy = await CuttableProxy.to(Number(new URL(daemon.url).port))
})
afterAll(async () => {
  await proxy[Symbol.asyncDispose]()
  await daemon[Symbol.asyncDispose]()
})

const client = (forSec = 60) =>
  connect({
    url: proxy.url,
    token: daemon.key,
    reconnection: { forSec, onChange: (state) => states.push(state) },
  })

test("output goes on from the byte that is missing", async () => {
  const before = daemon.host.processes.length
  const run = client().execStream("dev", { cmd: ["flood", "20000000"] })
  const hash = new Bun.CryptoHasher("sha256")
  let count = 0
  let cuts = 0
  for await (const { bytes } of run.output) {
    hash.update(bytes)
    count += bytes.length
    if (cuts < 3 && count > (cuts + 1) * 4_000_000) {
      cuts++
      proxy.cut()
    }
  }
  expect(await run.exit).toMatchObject({ exit_code: 0 })
  expect([count, cuts]).toEqual([20_000_000, 3])
  const piece = new Uint8Array(32_768).map((_, index) => 97 + (index % 26))
  const expected = new Bun.CryptoHasher("sha256")
  for (let left = 20_000_000; left > 0; left -= piece.length)
    expected.update(piece.subarray(0, Math.min(left, piece.length)))
  expect(hash.digest("hex")).toBe(expected.digest("hex"))
  expect(daemon.host.processes.length - before).toBe(1)
  expect(states).toEqual(["lost", "back", "lost", "back", "lost", "back"])
})

/** Types into a command that prints its input, while the connection is cut twice. */
async function typeOverCuts(run: ExecStream): Promise<{ sent: Uint8Array; received: Uint8Array }> {
  const sent = new Uint8Array(3_000_000).map((_, index) => index % 251)
  const writing = (async () => {
    for (let at = 0; at < sent.length; at += 100_000) {
      await run.write(sent.slice(at, at + 100_000))
      if (at === 500_000 || at === 2_000_000) proxy.cut()
    }
    run.endInput()
  })()
  const received: Uint8Array[] = []
  for await (const { bytes } of run.output) received.push(bytes)
  await writing
  expect(await run.exit).toMatchObject({ exit_code: 0 })
  return { sent, received: Buffer.concat(received) }
}

test("input is sent again as far as the program lacks it", async () => {
  const before = daemon.host.processes.length
  const run = client().execStream("dev", { cmd: ["cat"], stdin: true })
  const { sent, received } = await typeOverCuts(run)
  expect(Buffer.compare(received, Buffer.from(sent))).toBe(0)
  expect(daemon.host.processes.length - before).toBe(1)
})

test.each(["the command's client", "a driver that attached"])(
  "input of another request is not taken for that of %s when it comes back",
  async (who) => {
    const started = client().execStream("dev", { cmd: ["cat"], stdin: true })
    await started.started
    const cat = daemon.lastProcess
    const run = who.startsWith("a") ? client().processStream("dev", cat.id, { mode: "drive" }) : started
    await run.write(Buffer.from("first "))
    await until("it is taken", () => cat.inputBytes === 6)
    await client().writeProcess({ params: { id: "dev", process: cat.id }, bytes: "another's " })
    proxy.cut()
    await run.write(Buffer.from("last"))
    run.endInput()
    let received = ""
    for await (const { bytes } of run.output) received += Buffer.from(bytes).toString()
    expect(await run.exit).toMatchObject({ exit_code: 0 })
    expect(received).toBe("first another's last")
  },
)

test("a buffered exec whose connection is cut is answered by another request", async () => {
  const before = daemon.host.processes.length
  const running = client().exec({ params: { id: "dev" }, body: { cmd: ["slow"] } })
  await until("the command runs", () => daemon.host.processes.length > before)
  proxy.cut()
  daemon.lastProcess.released.resolve()
  expect(await running).toMatchObject({ exit_code: 0, stdout: "first\nsecond\n" })
  expect(daemon.host.processes.length - before).toBe(1)
})

test("exec --json goes on too, and its result has all output", async () => {
  const before = daemon.host.processes.length
  const args = ["exec", "--json", "-i", "--url", proxy.url, "dev", "--", "cat"]
  const child = Bun.spawn([...program, ...args], {
    env: environment(daemon),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  })
  child.stdin.write("before ")
  child.stdin.flush()
  await until(
    "its input is taken",
    () => daemon.host.processes.length > before && daemon.lastProcess.inputBytes === 7,
  )
  proxy.cut()
  child.stdin.write("after")
  child.stdin.end()
  expect(await child.exited).toBe(0)
  expect(JSON.parse(await child.stdout.text())).toMatchObject({
    exit_code: 0,
    stdout: "before after",
    truncated: false,
  })
  expect(daemon.host.processes.length - before).toBe(1)
})

test("an aborted exec ends its command at once", async () => {
  const before = daemon.host.processes.length
  const leaving = new AbortController()
  const { signal } = leaving
  const running = client().exec({ params: { id: "dev" }, body: { cmd: ["sleep"] }, signal })
  await until("the command runs", () => daemon.host.processes.length > before)
  const { ended } = daemon.lastProcess
  leaving.abort()
  expect(await running.catch(({ name }: Error) => name)).toBe("AbortError")
  expect(await ended).toMatchObject({ signal: "KILL" })
})

test("a process whose answer is lost is started once", async () => {
  const before = daemon.host.processes.length
  const held = daemon.hold("POST /sandboxes/dev/processes", "answer")
  const starting = client().startProcess({ params: { id: "dev" }, body: { cmd: ["sleep"] } })
  await held.reached
  proxy.cut()
  held.release()
  expect(await starting).toMatchObject({ process_id: daemon.lastProcess.id })
  expect(daemon.host.processes.length - before).toBe(1)
})

test("a stream's output waits for its client, also without a window of its own, if it has a key", async () => {
  const socket = new WebSocket(`${daemon.url.replace("http", "ws")}/sandboxes/dev/exec/ws`, {
    headers: { authorization: `Bearer ${daemon.key}` },
  } as never)
  socket.binaryType = "arraybuffer"
  let received = 0
  const ack = (bytes: number) => socket.send(JSON.stringify({ type: "ack", bytes }))
  const ended = new Promise((resolve) => {
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") return data.includes('"exit"') ? resolve(data) : undefined
      const before = received
      received += data.byteLength - 1
      if (before >= limits.execKeyedWindowBytes) ack(data.byteLength - 1)
      else if (received >= limits.execKeyedWindowBytes) ack(received)
    }
  })
  socket.onopen = () => socket.send(JSON.stringify({ cmd: ["flood", "3000000"], key: "no-window" }))
  await ended
  expect(received).toBe(3_000_000)
  expect(daemon.lastExec.unacknowledgedMax).toBeLessThanOrEqual(limits.execKeyedWindowBytes + 32_768)
})

test("a command that cannot be found again in time has an unknown fate", async () => {
  const run = client(0.2).execStream("dev", { cmd: ["sleep"] })
  await until("the command runs", () => run.hasStarted)
  const gone = proxy
  proxy = await CuttableProxy.to(Number(new URL(daemon.url).port))
  await gone[Symbol.asyncDispose]()
  expect(await run.exit.catch((error: unknown) => error)).toMatchObject({
    code: "unavailable",
    reason: "fate_unknown",
    retryable: false,
  })
})

test("close kills the command at once, whatever its grace", async () => {
  const run = client().execStream("dev", { cmd: ["sleep"] })
  await until("the command runs", () => run.hasStarted)
  const { ended } = daemon.lastProcess
  run.close()
  expect(await ended).toMatchObject({ signal: "KILL", by: "client" })
})

test("the driver of a kept process loses nothing that it typed", async () => {
  const kept = await daemon.call("POST", "/sandboxes/dev/processes", { cmd: ["cat"], stdin: true })
  const { process_id: id } = kept.body as { process_id: string }
  await client().writeProcess({ params: { id: "dev", process: id }, bytes: "before " })
  const run = client().processStream("dev", id, { mode: "drive" })
  const { sent, received } = await typeOverCuts(run)
  expect(Buffer.compare(received, Buffer.concat([Buffer.from("before "), sent]))).toBe(0)
})

/** A daemon that a test plays: `answer` gets the client's messages of each connection, numbered from 1. */
function played(
  answer: (socket: Bun.ServerWebSocket<number>, message: string | Buffer) => void,
  open: (socket: Bun.ServerWebSocket<number>) => void = () => {},
) {
  let count = 0
  const server = Bun.serve<number>({
    port: 0,
    fetch(request, own) {
      if (request.url.endsWith("/version")) return Response.json({ version: "0" })
      own.upgrade(request, { data: ++count })
      return undefined
    },
    websocket: { message: answer, open },
  })
  const client = connect({
    url: `http://127.0.0.1:${server.port}`,
    token: "bht_key",
    openSocket: (url) => new WebSocket(url),
  })
  return { client, [Symbol.dispose]: () => void server.stop(true) }
}

const startedMessage = (fields: object) =>
  JSON.stringify({
    ...{ type: "started", pid: 1, process_id: "p1", is_new: true, input: 0 },
    ...{ from: { stdout: 0, stderr: 0 }, ...fields },
  })

test("a command that has begun and is begun again is no answer to its client", async () => {
  using other = played((socket) => {
    socket.send(startedMessage({}))
    if (socket.data === 1) socket.close()
  })
  const { exit } = other.client.execStream("dev", { cmd: ["true"] })
  expect(await exit.catch((error: unknown) => error)).toMatchObject({
    code: "unavailable",
    reason: "fate_unknown",
    retryable: false,
  })
})

test("input that a daemon without keys has refused is sent again, with its end", async () => {
  let input = ""
  using older = played((socket, message) => {
    if (typeof message !== "string") {
      if (socket.data === 2) input += message.toString()
    } else if (message.includes('"cmd"')) {
      const refusal = { type: "error", code: "invalid", message: "unknown field", hint: null }
      socket.send(socket.data === 1 ? JSON.stringify(refusal) : '{"type":"started","pid":1}')
    } else if (message.includes("stdin_end") && socket.data === 2)
      socket.send('{"type":"exit","exit_code":0,"signal":null,"timed_out":false}')
  })
  const run = older.client.execStream("dev", { cmd: ["cat"], stdin: true })
  await run.write(new TextEncoder().encode("hello"))
  run.endInput()
  expect(await run.exit).toMatchObject({ exit_code: 0 })
  expect(input).toBe("hello")
})

const frame = (text: string) => Buffer.from(`\x01${text}`)
/** Loses its first client, and some output before the next one comes; more is gone at the end. */
const losing = () =>
  played(
    () => {},
    (socket) => {
      if (socket.data === 1) {
        socket.send(startedMessage({ is_new: false }))
        socket.sendBinary(frame("abc"))
        return socket.close()
      }
      socket.send(startedMessage({ is_new: false, from: { stdout: 8, stderr: 0 } }))
      socket.sendBinary(frame("later"))
      socket.send('{"type":"skipped","stdout":0,"stderr":4}')
      socket.send('{"type":"exit","exit_code":0,"signal":null,"timed_out":false}')
    },
  )

test("a watcher that was away for too long is told what it has missed", async () => {
  using lossy = losing()
  const pieces: unknown[] = []
  const run = lossy.client.processStream("dev", "p1")
  for await (const { channel, bytes, skipped } of run.output)
    pieces.push([channel, new TextDecoder().decode(bytes), skipped])
  expect(pieces).toEqual([
    ["stdout", "abc", undefined],
    ["stdout", "later", 5],
    ["stderr", "", 4],
  ])
})

test("input that a sandbox does not count is not typed twice", async () => {
  let typed = ""
  const uncounted = { is_new: false, input: undefined }
  using older = played(
    (socket, message) => {
      if (typeof message === "string") return
      typed += message.toString()
      if (typed === "one") socket.close()
      else socket.send('{"type":"exit","exit_code":0,"signal":null,"timed_out":false}')
    },
    (socket) => void socket.send(startedMessage(uncounted)),
  )
  const run = older.client.processStream("dev", "s1", { mode: "drive" })
  await run.write(new TextEncoder().encode("one"))
  await until("it is lost", () => run.isLost)
  await run.write(new TextEncoder().encode("two"))
  expect(await run.exit).toMatchObject({ exit_code: 0 })
  expect(typed).toBe("onetwo")
})

test("a driver that was away for too long fails", async () => {
  using lossy = losing()
  const { exit } = lossy.client.processStream("dev", "p1", { mode: "drive" })
  expect(await exit.catch((error: unknown) => error)).toMatchObject({
    message: "output of the process was lost with the connection",
  })
})

test("a command whose first output is gone before its client has begun fails", async () => {
  using lossy = played((socket) => {
    if (socket.data === 1) return socket.close()
    socket.send(startedMessage({ is_new: false, from: { stdout: 8, stderr: 0 } }))
  })
  const { exit } = lossy.client.execStream("dev", { cmd: ["true"] })
  expect(await exit.catch((error: unknown) => error)).toMatchObject({
    message: "output of the command was lost with the connection",
  })
})

test("a daemon that does not know keys is asked without one", async () => {
  const starts: object[] = []
  using server = Bun.serve({
    port: 0,
    fetch(request, own) {
      if (own.upgrade(request)) return
      return Response.json({ version: "0" })
    },
    websocket: {
      message(socket, text) {
        const start = JSON.parse(String(text)) as Record<string, unknown>
        starts.push(start)
        const refusal = { type: "error", code: "invalid", message: "unknown field", hint: null }
        const exit = { type: "exit", exit_code: 0, signal: null, timed_out: false }
        socket.send(JSON.stringify("key" in start ? refusal : exit))
      },
    },
  })
  const old = connect({
    url: `http://127.0.0.1:${server.port}`,
    token: "bht_key",
    openSocket: (url) => new WebSocket(url),
  })
  expect(await old.execStream("dev", { cmd: ["true"] }).exit).toMatchObject({ exit_code: 0 })
  expect(starts.map((start) => "key" in start)).toEqual([true, false])
})
