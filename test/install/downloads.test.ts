/** What the daemon serves below /install: the script, checksums and files, to whom, how much at once, and never from memory. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { limits } from "../../src/contract/limits.ts"
import { HostDownloads } from "../../src/downloads.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let home = ""
let own: HttpApp
beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "bhatti-downloads-"))
  writeFileSync(join(home, "program"), "the running program")
  const program = { name: "bhatti-linux-x64", path: join(home, "program") }
  own = await openHttpApp({ downloads: new HostDownloads({ directory: join(home, "clients"), program }) })
})
afterEach(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(home, { recursive: true })
})

const sha256 = (bytes: Uint8Array | string) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
const get = (path: string, headers: Record<string, string> = {}) => fetch(`${own.url}${path}`, { headers })

/** As scripts/release.ts leaves it. */
function addClient(platform: string, program: Uint8Array): void {
  const packed = Bun.gzipSync(new Uint8Array(program))
  const name = `bhatti-${platform}`
  mkdirSync(join(home, "clients"), { recursive: true })
  writeFileSync(join(home, "clients", `${name}.gz`), packed)
  const lines = `${sha256(program)}  ${name}\n${sha256(packed)}  ${name}.gz\n`
  writeFileSync(join(home, "clients/SHA256SUMS"), lines, { flag: "a" })
}

test("without a key the script comes, made for the address that it was asked at", async () => {
  const answer = await get("/install")
  expect(answer.headers.get("content-type")).toContain("text/x-shellscript")
  const text = await answer.text()
  expect(text).toStartWith("#!/bin/sh\n")
  expect(text).toContain(`\nfiles='${own.url}/install'\ndaemon='${own.url}'\n`)
  expect((await get("/install", { "x-forwarded-proto": "https" })).status).toBe(200)
})

test("a Host header that is no host and port never becomes a part of the script", async () => {
  for (const host of ["127.0.0.1:8080'; touch /tmp/x; '", "127.0.0.1$(id)", "[::1]`id`", "localhost:80 80"]) {
    const answer = await raw(`GET /install HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
    expect(answer).not.toContain("#!/bin/sh")
  }
})

test("where nothing was put the running program is the client of its own platform", async () => {
  expect(await (await get("/install/SHA256SUMS")).text()).toBe(
    `${sha256("the running program")}  bhatti-linux-x64\n`,
  )
  expect(await (await get("/install/bhatti-linux-x64")).text()).toBe("the running program")
  const head = await fetch(`${own.url}/install/bhatti-linux-x64`, { method: "HEAD" })
  expect([head.status, await head.text()]).toEqual([200, ""])
})

test("what was put there is served, packed as it lies there and unpacked on the way", async () => {
  const program = crypto.getRandomValues(new Uint8Array(60_000))
  addClient("darwin-arm64", program)
  addClient("linux-x64", new TextEncoder().encode("the client"))
  const sums = await (await get("/install/SHA256SUMS")).text()
  expect(sums).toContain(`${sha256(program)}  bhatti-darwin-arm64\n`)
  expect(sums).not.toContain(sha256("the running program"))
  const packed = await (await get("/install/bhatti-darwin-arm64.gz")).bytes()
  expect(sums).toContain(`${sha256(packed)}  bhatti-darwin-arm64.gz\n`)
  expect(sha256(await (await get("/install/bhatti-darwin-arm64")).bytes())).toBe(sha256(program))
  expect(await (await get("/install/bhatti-linux-x64")).text()).toBe("the client")
})

test("how long a file is is said before, and one that became shorter is not taken for whole", async () => {
  const size = 8 * 1024 * 1024
  writeFileSync(join(home, "program"), new Uint8Array(size))
  const path = "/install/bhatti-linux-x64"
  const answer = await get(path)
  expect(answer.headers.get("content-length")).toBe(`${size}`)
  expect((await answer.bytes()).length).toBe(size)
  const slow = slowReader(path)
  await until("it is under way", () => slow.head().includes("200 OK"))
  truncateSync(join(home, "program"), 1000)
  expect(await slow.rest()).toBeLessThan(size)
})

test("only what is listed can be fetched", async () => {
  addClient("linux-arm64", new Uint8Array(10))
  writeFileSync(join(home, "clients/other"), "not listed")
  for (const name of [
    "other",
    "bhatti-darwin-x64",
    "..%2Fprogram",
    "%2E%2E",
    "SHA256SUMS.gz",
    "..%2f..%2fetc%2fpasswd",
  ]) {
    const answer = await get(`/install/${name}`)
    expect([name, answer.status]).toEqual([name, 404])
  }
})

test("a client has only so many downloads at once, and gets others when one has ended", async () => {
  const size = 64 * 1024 * 1024
  addClient("linux-x64", new Uint8Array(size))
  const memoryBefore = process.memoryUsage().rss
  const sockets = Array.from({ length: limits.downloadsPerClientMax }, () =>
    slowReader("/install/bhatti-linux-x64"),
  )
  try {
    await until("all are under way", () => sockets.every(({ head }) => head().includes("200 OK")))
    const refused = await get("/install/bhatti-linux-x64")
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "10"])
    expect((await get("/install")).status).toBe(200)
    // Eight times 64 MB are on their way, and nobody takes them; other tests of this process move its memory a little too.
    expect(process.memoryUsage().rss - memoryBefore).toBeLessThan((limits.downloadsPerClientMax * size) / 2)
  } finally {
    for (const { socket } of sockets) socket.destroy()
  }
  await until(
    "one may come",
    async () => (await fetch(`${own.url}/install/bhatti-linux-x64`, { method: "HEAD" })).ok,
  )
  const opened = () =>
    readdirSync("/proc/self/fd").filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(home)
      } catch {
        return false
      }
    })
  await until("all files are closed", () => opened().length === 0)
})

test("who asks too often is told when to come again", async () => {
  let last = await get("/install")
  for (let at = 0; at < 70 && last.ok; at++) last = await get("/install")
  expect(last.status).toBe(429)
  expect(Number(last.headers.get("retry-after"))).toBeGreaterThan(0)
})

function raw(request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ""
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(own.url).port) }, () =>
      socket.write(request),
    )
    socket.on("data", (bytes) => {
      text += bytes.toString()
    })
    socket.on("close", () => resolve(text))
    socket.on("error", reject)
  })
}

/** Takes the first bytes of an answer and no more. */
function slowReader(path: string) {
  let text = ""
  let received = 0
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(own.url).port) }, () =>
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`),
  )
  socket.on("error", () => undefined)
  socket.once("data", (bytes) => {
    socket.pause()
    received = bytes.length
    text = bytes.toString("latin1", 0, 20)
  })
  /** Bytes that come until the connection ends. */
  const rest = () =>
    new Promise<number>((resolve) => {
      socket.on("data", (bytes) => {
        received += bytes.length
      })
      socket.on("close", () => resolve(received))
      socket.resume()
    })
  return { socket, head: () => text, rest }
}
