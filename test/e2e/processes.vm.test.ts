/**
 * Processes on real machines: commands that run once whatever happens to their client and the daemon, and commands that
 * need no client. BHATTI_TEST_LONG=1 runs a thousand commands instead of forty.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { type Client, connect } from "@bhatti/sdk/client"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { Client as McpClient } from "@modelcontextprotocol/client"
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio"
import { Random } from "../sim/random.ts"
import { CuttableProxy } from "../support/cuttable-proxy.ts"
import { binary, type Installation, install, until } from "../support/installation.ts"
import { Requests } from "../support/requests.ts"
import { residentMib } from "../support/resident.ts"

const isLong = process.env["BHATTI_TEST_LONG"] === "1"
const commands = isLong ? 1000 : 40
const atOnce = 4

let own: Installation
let requests: Requests
let proxy: CuttableProxy
let client: Client

beforeAll(async () => {
  own = await install({ config: "warm_after: 0\ndisk_reserve_mb: 0\non_stop: snapshot\n" })
  requests = new Requests(own)
  proxy = await CuttableProxy.to(Number(new URL(own.url).port))
  client = connect({ url: proxy.url, token: own.key, openSocket })
  expect((await requests.create("dev")).status).toBe(201)
}, 600_000)
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]()
  await own?.[Symbol.asyncDispose]()
}, 120_000)

function openSocket(url: string, headers: Record<string, string>): WebSocket {
  return new WebSocket(url, { headers })
}

async function textOf(run: ExecStream): Promise<string> {
  const decoder = new TextDecoder()
  let text = ""
  for await (const { bytes } of run.output) text += decoder.decode(bytes, { stream: true })
  return text
}

/** Cuts connections and kills the daemon until it is disposed of. */
function disturbances(): AsyncDisposable & { cuts: number; kills: number } {
  const random = new Random(isLong ? Date.now() : 13)
  let isOver = false
  const counts = { cuts: 0, kills: 0 }
  const disturbing = (async () => {
    while (!isOver) {
      await Bun.sleep(100 + random.integer(900))
      if (isOver) break
      if (random.chance(0.7)) {
        proxy.cut()
        counts.cuts++
        continue
      }
      await own.stopDaemon("SIGKILL")
      await own.startDaemon()
      counts.kills++
    }
  })()
  return Object.assign(counts, {
    async [Symbol.asyncDispose]() {
      isOver = true
      await disturbing
    },
  })
}

const lines = (name: string, count: number) =>
  Array.from({ length: count }, (_, line) => `${name} ${line}\n`).join("")
/** A daemon that is away from the beginning has been sent nothing, and the caller asks again. */
async function runThere(cmd: string[], input: Uint8Array): Promise<{ text: string; exit: object }> {
  for (;;) {
    const run = client.execStream("dev", { cmd, stdin: true })
    const reading = textOf(run)
    await run.write(new Uint8Array(input))
    run.endInput()
    const text = await reading
    const exit = await run.exit.catch((error: unknown) => {
      if (error instanceof AppError && error.retryable) return undefined
      throw error
    })
    if (exit !== undefined) return { text, exit }
  }
}

const script = `echo x >> "/workspace/runs/$0"
line=0
while [ $line -lt 300 ]; do echo "$0 $line"; line=$((line + 1)); done
sleep 0.$1
cat
echo end`

test("commands run once, and every byte comes once and in order, whatever is cut and killed", async () => {
  await requests.output("dev", "mkdir -p /workspace/runs")
  const random = new Random(7)
  const input = (name: string) => Buffer.from(lines(`${name} input`, 500))
  let next = 0
  const worker = async () => {
    for (let index = next++; index < commands; index = next++) {
      const name = `c${index}`
      const cmd = ["sh", "-c", script, name, `${random.integer(9)}`]
      const { text, exit } = await runThere(cmd, input(name))
      expect(exit).toMatchObject({ exit_code: 0 })
      expect(text === `${lines(name, 300)}${input(name)}end\n`).toBe(true)
    }
  }
  let counts = { cuts: 0, kills: 0 }
  {
    await using disturbing = disturbances()
    await Promise.all(Array.from({ length: atOnce }, worker))
    counts = disturbing
  }
  expect(counts.cuts + counts.kills).toBeGreaterThan(2)
  const ran = (await requests.output("dev", "cd /workspace/runs; ls | wc -l; cat * | wc -l"))
    .trim()
    .split(/\s+/)
  expect(ran).toEqual([`${commands}`, `${commands}`])
}, 900_000)

test("bhatti exec goes on when the daemon is killed and started again, and says so when that takes long", async () => {
  const child = own.start(["exec", "dev", "--", "sh", "-c", "echo one; sleep 3; echo two"])
  await until(
    "it has begun",
    async () => (await requests.output("dev", "pgrep -c -f 'sleep 3' || true")).trim() !== "0",
  )
  await own.stopDaemon("SIGKILL")
  await Bun.sleep(2500)
  await own.startDaemon()
  expect(await new Response(child.stdout).text()).toBe("one\ntwo\n")
  expect(await new Response(child.stderr).text()).toBe("bhatti: connection lost; trying again…\n")
  expect(await child.exited).toBe(0)
}, 60_000)

test("bhatti exec goes on when the daemon is restarted, which writes its sandbox to disk", async () => {
  const child = own.start(["exec", "dev", "--", "sh", "-c", "echo one; sleep 2; echo two"])
  const reader = child.stdout.getReader()
  let text = Buffer.from((await reader.read()).value ?? "").toString()
  await own.stopDaemon("SIGTERM")
  await own.startDaemon()
  for (let read = await reader.read(); !read.done; read = await reader.read())
    text += Buffer.from(read.value).toString()
  expect(text).toBe("one\ntwo\n")
  expect(await child.exited).toBe(0)
}, 90_000)

test("bhatti wait and logs -f go on with the next daemon", async () => {
  const script = "echo one; sleep 3; echo two; exit 4"
  const job = (await own.bhatti(["exec", "-d", "dev", "--", "sh", "-c", script])).stdout.trim()
  const waiting = own.start(["wait", "dev", job])
  const following = own.start(["logs", "-f", "dev", job])
  const reader = following.stdout.getReader()
  let text = Buffer.from((await reader.read()).value ?? "").toString()
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  for (let read = await reader.read(); !read.done; read = await reader.read())
    text += Buffer.from(read.value).toString()
  expect(text).toBe("one\ntwo\n")
  expect(await waiting.exited).toBe(4)
}, 60_000)

test("bhatti logs has both streams in the order of their lines, and an end by a time limit is 124", async () => {
  const script = "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done; sleep 100"
  const started = await own.bhatti(["exec", "-d", "--timeout", "2", "dev", "--", "sh", "-c", script])
  const job = started.stdout.trim()
  expect((await own.bhatti(["wait", "dev", job])).exitCode).toBe(124)
  const { stdout } = await own.bhatti(["logs", "dev", job, "--json"])
  const told = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
  const text = told.map(({ data = "" }) => data).join("")
  expect(text).toBe("out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n")
  expect(told.at(-1)).toMatchObject({ type: "exit", timed_out: true })
}, 60_000)

test("a command goes on over a stop to disk and a wake, with its client and without one", async () => {
  const key = crypto.randomUUID()
  const start = { cmd: ["sh", "-c", "for i in $(seq 1 40); do echo $i; sleep 0.1; done"], key }
  const first = client.execStream("dev", start)
  const taken = first.output
  expect(Buffer.from((await taken.next()).value?.bytes ?? "").toString()).toStartWith("1\n")
  first.leave()
  const { stdout } = await own.bhatti(["exec", "-d", "dev", "--", ...start.cmd])
  const job = stdout.trim()
  expect((await requests.stop("dev")).status).toBe(200)
  expect((await requests.start("dev")).status).toBe(200)
  const counted = Array.from({ length: 40 }, (_, index) => `${index + 1}\n`).join("")
  expect(await textOf(client.execStream("dev", { ...start, elapsed_ms: 60_000 } as never))).toBe(counted)
  expect((await own.bhatti(["wait", "dev", job])).exitCode).toBe(0)
  expect((await own.bhatti(["logs", "dev", job])).stdout).toBe(counted)
}, 120_000)

test("one drives a terminal and others watch it: a late one joins the same output, a slow one slows nobody", async () => {
  const { process_id: id } = await client.startProcess({
    params: { id: "dev" },
    body: { cmd: ["sh"], tty: { rows: 24, cols: 80 } },
  })
  const driver = client.processStream("dev", id, { mode: "drive" })
  const driven = textOf(driver)
  const watcher = client.processStream("dev", id)
  const watched = textOf(watcher)
  const slow = client.processStream("dev", id)
  await Promise.all([driver.started, watcher.started, slow.started])
  await driver.write(new TextEncoder().encode("echo first; seq 1 400000\n"))
  const pieces: string[] = []
  let late: Promise<string> | undefined
  await until("the flood is over", async () => {
    const { output } = await client.getProcess({ params: { id: "dev", process: id } })
    if (output.stdout.total > 500_000) late ??= textOf(client.processStream("dev", id))
    return output.stdout.total > 3_000_000
  })
  await driver.write(new TextEncoder().encode("echo done; exit 3\n"))
  expect(await driver.exit).toMatchObject({ exit_code: 3 })
  const all = await driven
  expect(all).toContain("\r\n400000\r\n")
  expect(await watched).toBe(all)
  expect(all.endsWith((await late) ?? "never")).toBe(true)
  let skipped = 0
  for await (const one of slow.output) {
    skipped += one.skipped ?? 0
    pieces.push(Buffer.from(one.bytes).toString())
  }
  expect(skipped).toBeGreaterThan(0)
  expect(all.endsWith(pieces.at(-1) ?? "never")).toBe(true)
}, 120_000)

test("200 MB of output without a client: any kept offset can be read, and nobody's memory grows", async () => {
  const before = residentMib(own.daemonPid())
  const agentMib = async () =>
    Number((await requests.output("dev", "grep VmRSS /proc/1/status")).replaceAll(/\D/g, "")) / 1024
  const agentBefore = await agentMib()
  const line = "0123456789abcde"
  const { process_id: id } = await client.startProcess({
    params: { id: "dev" },
    body: { cmd: ["sh", "-c", `yes ${line} | head -c 200000000`], name: "flood", timeout_sec: 300 },
  })
  const params = { id: "dev", process: id }
  expect(await client.waitProcess({ params })).toMatchObject({ ended: { exit_code: 0 } })
  const { output } = await client.getProcess({ params })
  const { first, total } = output.stdout
  expect(total).toBe(200_000_000)
  expect(total - first).toBeGreaterThanOrEqual(1024 * 1024 - 65_536)
  const expected = Buffer.from(`${line}\n`.repeat((total - first) / 16 + 2))
  for (const offset of [0, first, first + 100_001, total - 1, total]) {
    const reply = await client.readProcess({ params, query: { offset } })
    const from = Math.max(first, offset)
    expect(reply.headers.get("x-bhatti-offset")).toBe(`${from}`)
    const bytes = Buffer.from(await reply.arrayBuffer())
    expect(Buffer.compare(bytes, expected.subarray(from % 16, (from % 16) + total - from))).toBe(0)
  }
  expect((await agentMib()) - agentBefore).toBeLessThan(16)
  expect(residentMib(own.daemonPid()) - before).toBeLessThan(100)
}, 200_000)

test("bhatti mcp runs commands, cuts long output with a way to the rest, and a cancelled call kills its command", async () => {
  const env = { HOME: "/dev/null", BHATTI_URL: own.url, BHATTI_TOKEN: own.key }
  const mcp = new McpClient({ name: "test", version: "1" })
  await mcp.connect(new StdioClientTransport({ command: binary, args: ["mcp"], env }))
  await using _open = { [Symbol.asyncDispose]: () => mcp.close() }
  const call = async (name: string, input: object, signal?: AbortSignal) => {
    const request = { name, arguments: { sandbox: "dev", ...input } }
    const { content } = await mcp.callTool(request, signal === undefined ? {} : { signal })
    return content.map((one) => (one.type === "text" ? one.text : "")).join("")
  }
  expect(await call("exec", { command: "echo $((6 * 7)); id -un" })).toBe(
    "exit code: 0\nstdout:\n42\nlohar\n",
  )
  const long = await call("exec", { command: "seq 1 100000; echo done >&2" })
  expect(long).toContain("\nstderr:\ndone\n")
  const [, id, offset] = long.match(/process=(\S+) stream=stdout offset=([0-9]+)\]/) ?? []
  const page = await call("process", { action: "read", process: id, offset: Number(offset), limit: 100 })
  expect(page).toContain(`bytes ${offset} to ${Number(offset) + 100} of 588895`)
  await call("file", { action: "write", path: "/workspace/mcp/a.txt", content: "a\nb\n" })
  expect(await call("file", { action: "read", path: "/workspace/mcp/a.txt", line: 2 })).toBe("b\n")

  const cancelling = new AbortController()
  const cancelled = call("exec", { command: "sleep 1000 & wait" }, cancelling.signal)
  cancelled.catch(() => undefined)
  const isRunning = async () =>
    /true/.test(await call("exec", { command: "pgrep -x sleep >/dev/null && echo true" }))
  await until("the command", isRunning)
  cancelling.abort()
  await until("its end", async () => !(await isRunning()))
})
