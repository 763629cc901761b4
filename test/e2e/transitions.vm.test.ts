/**
 * Requests that come at the very moment at which a sandbox is paused or written to disk, by the thermal loop or by its
 * owner: commands, file writes and published requests. Each is carried out exactly once. `SEED=7 ROUNDS=60` makes more
 * of it.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Random } from "../sim/random.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { Requests } from "../support/requests.ts"

const seed = Number(process.env["SEED"] ?? 1)
const rounds = Number(process.env["ROUNDS"] ?? 5)
const name = "dev"

let own: Installation
let requests: Requests
beforeAll(
  async () => {
    own = await install({ isForked: true, config: "warm_after: 1\ncold_after: 1\n" })
    requests = new Requests(own)
    expect((await requests.create(name)).status).toBe(201)
    const start = "cat >/tmp/server.py; setsid python3 /tmp/server.py </dev/null >/dev/null 2>&1 &"
    const started = await own.bhatti(["exec", "-i", name, "--", "sh", "-c", start], { stdin: server })
    expect(started.exitCode).toBe(0)
    expect(
      (await requests.send("POST", `/sandboxes/${name}/publish`, { port: 8000, alias: name })).status,
    ).toBe(201)
    await until("the server answers", async () => (await ask("first")).status === 200)
  },
  600_000 + rounds * 30_000,
)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

/** Writes down whatever it is sent. */
const server = `
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_POST(self):
        word = self.rfile.read(int(self.headers["content-length"])).decode()
        with open("/workspace/served", "a") as file: file.write(word + "\\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(word.encode())
ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
`

async function ask(word: string): Promise<{ status: number; body: string }> {
  const host = `${name}.localhost:${new URL(own.url).port}`
  const response = await fetch(own.url, { method: "POST", headers: { host }, body: word, keepalive: false })
  return { status: response.status, body: await response.text() }
}

/** All three kinds at once, each with a word that only it writes. */
async function askAll(round: number): Promise<void> {
  const word = `word-${round}`
  const bytes = word.repeat(20_000)
  const [ran, served, written] = await Promise.all([
    requests.exec(name, `echo ${word} >> /workspace/ran; echo ${word}`),
    ask(word),
    own.bhatti(["file", "write", name, `/workspace/${word}`], { stdin: bytes }),
  ])
  expect([ran.status, (ran.body as { stdout?: string }).stdout]).toEqual([200, `${word}\n`])
  expect([served.status, served.body]).toEqual([200, word])
  expect([written.exitCode, written.stderr]).toEqual([0, ""])
}

const words = (count: number) => Array.from({ length: count }, (_, index) => `word-${index}`)

/** Checks that no entry is missing or there twice. */
async function compare(count: number): Promise<void> {
  const expected = words(count)
  expect((await requests.output(name, "cat /workspace/ran")).trim().split("\n")).toEqual(expected)
  const served = (await requests.output(name, "cat /workspace/served")).trim().split("\n")
  expect(served.filter((word) => word !== "first")).toEqual(expected)
  const sizes = await requests.output(
    name,
    "cd /workspace && wc -c word-* | sed 's/^ *//' | grep -v total | sort -V -k2",
  )
  expect(sizes.trim().split("\n")).toEqual(expected.map((word) => `${word.length * 20_000} ${word}`))
  await requests.output(name, "cd /workspace && rm -f ran served word-*; : > served")
}

const thermal = async () => (await requests.show(name))?.thermal

test(
  "at the moment of a pause or of a write to disk by the daemon: each is carried out exactly once",
  async () => {
    const random = new Random(seed)
    for (let round = 0; round < rounds; round++) {
      const from = random.pick(["warm", "cold"] as const)
      const seen = await transition(from)
      await Bun.sleep(seen === "about" ? random.integer(120) : 0)
      await askAll(round)
    }
    await compare(rounds)
  },
  600_000 + rounds * 30_000,
)

/** Waits until it is about to happen, as far as can be told, or has just happened. */
async function transition(from: "warm" | "cold"): Promise<"about" | "happened"> {
  const before = from === "warm" ? "hot" : "warm"
  if (from === "cold") await until("it is paused", async () => (await thermal()) !== "hot")
  const startedMs = performance.now()
  // Idle for a second is what it waits for; the daemon looks every now and then.
  await until(`it is ${from}`, async () => {
    const now = await thermal()
    return now !== before || performance.now() - startedMs > 900
  })
  return (await thermal()) === before ? "about" : "happened"
}

test(
  "at the moment of a stop that its owner asks for: each is carried out exactly once, and the stop answers",
  async () => {
    const random = new Random(seed)
    for (let round = 0; round < rounds; round++) {
      const stopping = requests.stop(name)
      await Bun.sleep(random.integer(400))
      await askAll(round)
      const { status } = await stopping
      // Another that is being carried out may be in its way; the stop then says so.
      expect([200, 409]).toContain(status)
    }
    await compare(rounds)
  },
  600_000 + rounds * 30_000,
)
