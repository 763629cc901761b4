/** Published ports of a real machine: a Python application in the guest, browsers' headers, streams, and their end. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { get, sendRaw } from "../proxy/stage.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"

const gibibyte = 1024 ** 3
const ports = { loopback: 8001, any: 8002, ipv6: 8003 }

/**
 * Answers on each kind of address; /bytes/N streams N bytes, /slow an endless trickle, /ws echoes one WebSocket's
 * messages.
 */
const application = `
import base64, hashlib, http.server, socket, sys, threading, time

open_streams = 0
last_end = 0
sample = open("/tmp/sample", "w+b")
sample.truncate(1 << 24)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        global open_streams, last_end
        if self.path.startswith("/bytes/"):
            left = int(self.path[7:])
            self.send_response(200)
            self.send_header("Content-Length", str(left))
            self.end_headers()
            self.wfile.flush()
            # From the page cache: an emulated processor is slow at copying by itself.
            while left > 0:
                left -= self.connection.sendfile(sample, 0, min(left, 1 << 24))
        elif self.path == "/slow":
            open_streams += 1
            try:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                while True:
                    self.wfile.write(b"data: tick\\n\\n")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                pass
            finally:
                open_streams -= 1
                last_end = time.monotonic()
                self.close_connection = True
        elif self.path == "/open":
            self.answer(f"{open_streams} {time.monotonic() - last_end}".encode())
        elif self.path == "/ws":
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.close_connection = True
            while True:
                head = self.rfile.read(2)
                if len(head) < 2 or head[0] & 15 == 8: return
                length = head[1] & 127
                if length == 126: length = int.from_bytes(self.rfile.read(2), "big")
                elif length == 127: length = int.from_bytes(self.rfile.read(8), "big")
                mask = self.rfile.read(4)
                key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
                body = (int.from_bytes(self.rfile.read(length), "big") ^ key).to_bytes(length, "big")
                size = bytes([length]) if length < 126 else b"\\x7e" + length.to_bytes(2, "big") if length < 65536 else b"\\x7f" + length.to_bytes(8, "big")
                self.wfile.write(bytes([head[0]]) + size + body)
                self.wfile.flush()
        else:
            told = {name: self.headers[name] for name in ("Host", "X-Forwarded-For", "X-Forwarded-Proto")}
            self.answer(repr(sorted(told.items())).encode())
    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left > 0:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        self.answer(digest.hexdigest().encode())

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

class Server6(Server):
    address_family = socket.AF_INET6

for server in (Server(("127.0.0.1", 8001), Handler), Server(("0.0.0.0", 8002), Handler), Server6(("::1", 8003), Handler)):
    threading.Thread(target=server.serve_forever).start()
`

let own: Installation
let daemonPort: number

beforeAll(async () => {
  own = await install()
  daemonPort = Number(new URL(own.url).port)
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
  const start = "cat >/tmp/app.py; setsid python3 /tmp/app.py </dev/null >/tmp/app.log 2>&1 &"
  const started = await own.bhatti(["exec", "-i", "dev", "--", "sh", "-c", start], { stdin: application })
  expect(started.exitCode).toBe(0)
  for (const [alias, port] of Object.entries(ports)) await publish(port, alias)
  for (const alias of Object.keys(ports))
    await until("the application listens", async () => (await ask(alias, "/")).status === 200)
}, 600_000)

afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function publish(port: number, alias: string): Promise<void> {
  const answer = await fetch(`${own.url}/sandboxes/dev/publish`, {
    method: "POST",
    headers: { authorization: `Bearer ${own.key}` },
    body: JSON.stringify({ port, alias }),
  })
  expect(answer.status).toBe(201)
  expect(await answer.json()).toMatchObject({ url: `http://${alias}.localhost:${daemonPort}/` })
}

const ask = (alias: string, path: string, init: RequestInit = {}) =>
  fetch(`${own.url}${path}`, { ...init, headers: { host: `${alias}.localhost:${daemonPort}` } })

/** How many there are, and how long ago the last one ended, by the guest's clock. */
async function openStreams(): Promise<{ count: number; endedMsAgo: number }> {
  const [count, endedSecAgo] = (await (await ask("any", "/open")).text()).split(" ").map(Number)
  return { count: count ?? Number.NaN, endedMsAgo: (endedSecAgo ?? Number.NaN) * 1000 }
}

function daemonMib(): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${own.daemonPid()}/status`, "utf8"))?.[1]) / 1024
}

function daemonCpuSec(): number {
  const fields = readFileSync(`/proc/${own.daemonPid()}/stat`, "utf8").split(") ")[1]?.split(" ") ?? []
  return (Number(fields[11]) + Number(fields[12])) / 100
}

describe("a published port", () => {
  test.each(Object.keys(ports))("answers when the application listens on the %s address", async (alias) => {
    const told = await (await ask(alias, "/")).text()
    expect(told).toContain(`('Host', '${alias}.localhost:${daemonPort}')`)
    expect(told).toContain("('X-Forwarded-For', '127.0.0.1')")
    expect(told).toContain("('X-Forwarded-Proto', 'http')")
  })

  test("answers many requests on one connection, in their order", async () => {
    const requests = Array.from({ length: 20 }, (_, index) =>
      get(`/bytes/${index}`, { host: "any.localhost", headers: index === 19 ? ["Connection: close"] : [] }),
    )
    const answer = await sendRaw(daemonPort, requests.join(""))
    const lengths = [...answer.matchAll(/Content-Length: (\d+)/gi)].map(([, length]) => Number(length))
    expect(lengths).toEqual(Array.from({ length: 20 }, (_, index) => index))
  })

  test("takes an upload whole", async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(65_536))
    const body = Buffer.concat(Array(128).fill(bytes))
    const digest = new Bun.CryptoHasher("sha256").update(body).digest("hex")
    expect(await (await ask("any", "/", { method: "POST", body })).text()).toBe(digest)
  })

  test("echoes a WebSocket's messages", async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${daemonPort}/ws`, {
      headers: { host: "any.localhost" },
    } as never)
    socket.binaryType = "arraybuffer"
    await new Promise((resolve, reject) => {
      socket.onopen = resolve
      socket.onerror = reject
    })
    for (const length of [1, 1000, 100_000, 1024 * 1024]) {
      const message = new Uint8Array(length).fill(length % 251)
      const answered = Promise.withResolvers<ArrayBuffer>()
      socket.onmessage = ({ data }) => answered.resolve(data)
      socket.send(message)
      expect(Bun.hash(await answered.promise)).toBe(Bun.hash(message))
    }
    socket.close()
  })

  test("streams a gibibyte through a daemon that stays small", async () => {
    await (await ask("any", "/bytes/33554432")).arrayBuffer()
    const before = daemonMib()
    let most = before
    let received = 0
    const startedAt = performance.now()
    const cpuBefore = daemonCpuSec()
    const done = Promise.withResolvers<void>()
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: daemonPort,
      socket: {
        data(opened, bytes) {
          received += bytes.length
          if (received >= gibibyte) opened.end()
        },
        close: () => done.resolve(),
      },
    })
    const timer = setInterval(() => {
      most = Math.max(most, daemonMib())
    }, 100)
    socket.write(get(`/bytes/${gibibyte}`, { host: "any.localhost" }))
    await done.promise
    clearInterval(timer)
    const mibPerSec = Math.round(1024 / ((performance.now() - startedAt) / 1000))
    const cpuSec = (daemonCpuSec() - cpuBefore).toFixed(1)
    console.log(
      `a gibibyte at ${mibPerSec} MiB/s, ${cpuSec} s of the daemon's CPU, ${Math.round(most - before)} MiB more memory`,
    )
    expect(received).toBeGreaterThanOrEqual(gibibyte)
    expect(most - before).toBeLessThan(32)
  }, 600_000)

  test("an application in the guest is told within a second when its client leaves", async () => {
    const { count: before } = await openStreams()
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: daemonPort, socket: { data() {} } })
    socket.write(get("/slow", { host: "any.localhost" }))
    await until("the stream is open", async () => (await openStreams()).count === before + 1)
    socket.end()
    const leftAt = performance.now()
    let takenMs = Number.NaN
    await until("the stream is closed", async () => {
      const { count, endedMsAgo } = await openStreams()
      // Asking takes time under emulation, which is not counted; one tick of the application is.
      takenMs = performance.now() - leftAt - endedMsAgo
      return count === before
    })
    expect(takenMs).toBeLessThan(1000 * patience)
  })

  test("whose application is not there says so", async () => {
    await publish(9999, "nobody")
    const answer = await ask("nobody", "/")
    expect(answer.status).toBe(502)
    expect(await answer.json()).toMatchObject({ hint: expect.stringContaining("start the application") })
  })

  test("is the guest's, never the host's: a port where only the host listens is nobody's", async () => {
    // The daemon itself listens there.
    await publish(daemonPort, "hosts")
    expect((await fetch(`${own.url}/health`)).status).toBe(200)
    expect((await ask("hosts", "/health")).status).toBe(502)
  })

  test("in use keeps its sandbox awake", async () => {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: daemonPort, socket: { data() {} } })
    const { count: before } = await openStreams()
    socket.write(get("/slow", { host: "any.localhost" }))
    await until("the stream is open", async () => (await openStreams()).count === before + 1)
    const why = JSON.parse((await own.bhatti(["why", "dev", "--json"])).stdout)
    expect(why.open_streams).toBeGreaterThan(0)
    expect(why.keeps_awake.join()).toContain("open")
    socket.end()
  })

  test("wakes its sandbox", async () => {
    expect((await own.bhatti(["stop", "dev"])).exitCode).toBe(0)
    expect((await ask("loopback", "/")).status).toBe(200)
  })

  test("has a second alias after a second publish, as in the reference, and loses one or all", async () => {
    const run = async (...args: string[]) => (await own.bhatti(args)).stdout.trim()
    const generated = await run("publish", "dev", "-p", "3000")
    expect(generated).toMatch(/^http:\/\/dev-[a-z0-9]{10}\.localhost/)
    const mine = await run("publish", "dev", "-p", "3000", "-a", "my-app")
    expect(mine).toBe(`http://my-app.localhost:${daemonPort}/`)
    expect(await run("publish", "dev", "-p", "3000")).toBe(generated)
    expect(await run("publish", "dev", "-p", "3000", "-a", "my-app")).toBe(mine)
    for (const shown of [await run("list", "-o", "wide"), await run("inspect", "dev")])
      expect(shown).toContain(`${generated} ${mine}`)
    // The port has no listener; an alias that leads nowhere is another matter.
    const alias = new URL(generated).hostname.split(".")[0] ?? ""
    const statuses = async () => [(await ask(alias, "/")).status, (await ask("my-app", "/")).status]
    expect(await statuses()).toEqual([502, 502])
    await run("unpublish", "dev", "-p", "3000", "-a", "my-app")
    expect(await statuses()).toEqual([502, 404])
    await run("publish", "dev", "-p", "3000", "-a", "my-app")
    await run("unpublish", "dev", "-p", "3000")
    expect(await statuses()).toEqual([404, 404])
  })

  test("that is unpublished in the middle of a stream ends it at once", async () => {
    const closed = Promise.withResolvers<number>()
    const begun = Promise.withResolvers<void>()
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: daemonPort,
      socket: { data: () => begun.resolve(), close: () => closed.resolve(performance.now()) },
    })
    socket.write(get("/slow", { host: "ipv6.localhost" }))
    await begun.promise
    const unpublishedAt = performance.now()
    const answer = await fetch(`${own.url}/sandboxes/dev/publish/${ports.ipv6}`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${own.key}` },
    })
    expect(answer.status).toBe(204)
    expect((await closed.promise) - unpublishedAt).toBeLessThan(1000 * patience)
    expect((await ask("ipv6", "/")).status).toBe(404)
    expect((await ask("any", "/")).status).toBe(200)
  })

  test("ends with its sandbox", async () => {
    expect((await own.bhatti(["destroy", "dev", "--yes"])).exitCode).toBe(0)
    expect((await ask("any", "/")).status).toBe(404)
  })
})
