/**
 * Downloads below /install: the script, checksums and files, to whom, how much at once, and never from
 * memory.
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { HostDownloads } from "../../src/downloads.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let home = ""
let own: HttpApp
const programOf = () => ({ name: "bhatti-linux-x64", path: join(home, "program") })
const served = (options: Parameters<typeof openHttpApp>[0] = {}) =>
  openHttpApp({
    downloads: new HostDownloads({ directory: join(home, "clients"), program: programOf() }),
    ...options,
  })
beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "bhatti-downloads-"))
  writeFileSync(join(home, "program"), "the running program")
  own = await served()
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

const filesOf = async (app: HttpApp, headers: Record<string, string>) =>
  /^files='(.*)'$/m.exec(await (await fetch(`${app.url}/install`, { headers })).text())?.[1]

test("the script says https where the configuration says so of that name and port, or a trusted proxy does", async () => {
  const publicAddress = { scheme: "https", domain: "box.example", port: 443 } as const
  await using behind = await served({ publicAddress })
  const claim = { "x-forwarded-proto": "https" }
  expect(await filesOf(behind, { host: "box.example" })).toBe("https://box.example/install")
  expect(await filesOf(behind, { host: "box.example:443" })).toBe("https://box.example:443/install")
  expect(await filesOf(behind, { host: "box.example:8080" })).toBe("http://box.example:8080/install")
  expect(await filesOf(behind, { host: "127.0.0.1", ...claim })).toBe("http://127.0.0.1/install")
  await using trusting = await served({ trustedProxies: ["127.0.0.1"] })
  expect(await filesOf(trusting, { host: "127.0.0.1", ...claim })).toBe("https://127.0.0.1/install")
})

test("a client is who other limits take it for: a trusted proxy's client, a whole /64 of IPv6 addresses", async () => {
  truncateSync(join(home, "program"), 64 * 1024 * 1024)
  await using behind = await served({ trustedProxies: ["127.0.0.1", "10.0.0.0/8"] })
  const ask = (client: string) =>
    fetch(`${behind.url}/install/bhatti-linux-x64`, {
      headers: { "x-forwarded-for": `${client}, 10.1.1.1` },
    })
  const answers: Response[] = []
  for (let at = 1; at <= limits.downloadsPerClientMax; at++) answers.push(await ask(`2001:db8:1:2::${at}`))
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
  const others = [await ask("2001:db8:1:2:f::9"), await ask("2001:db8:1:3::1"), await ask("192.0.2.1")]
  expect(others.map(({ status }) => status)).toEqual([503, 200, 200])
  for (const { body } of [...answers, ...others]) await body?.cancel()
})

test("a damaged archive is an answer that breaks off, and the next request is answered", async () => {
  addClient("linux-arm64", crypto.getRandomValues(new Uint8Array(2_000_000)))
  const packed = join(home, "clients/bhatti-linux-arm64.gz")
  const broken = Buffer.from(readFileSync(packed))
  broken.fill(0x55, 1_000_000, 1_005_000)
  for (const bytes of [broken, broken.subarray(0, 1000), Buffer.from("no archive")]) {
    writeFileSync(packed, bytes)
    const read = get("/install/bhatti-linux-arm64").then((answer) => answer.bytes())
    expect(
      await read.then(
        () => "whole",
        () => "broken off",
      ),
    ).toBe("broken off")
  }
  expect((await get("/install/SHA256SUMS")).status).toBe(200)
})

test("an archive that is found damaged before anybody reads it says so at the first read", async () => {
  addClient("linux-arm64", new Uint8Array(10))
  writeFileSync(join(home, "clients/bhatti-linux-arm64.gz"), "no archive")
  const downloads = new HostDownloads({ directory: join(home, "clients"), program: undefined })
  const file = await downloads.open("bhatti-linux-arm64")
  let turns = 0
  await until("it was looked into", () => turns++ > 10)
  expect(await file?.next().then(String, () => "broken off")).toBe("broken off")
  file?.close()
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
    // Eight times 64 MB are on their way, and nobody takes them; other tests of this process move its memory a little
    // too.
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

describe("a place for a download is given back", () => {
  const path = "/install/bhatti-linux-x64"
  const isServed = async () => {
    const answer = await get(path)
    await answer.body?.cancel()
    return answer.status === 200
  }
  const fill = (request?: string) => {
    const readers = Array.from({ length: limits.downloadsPerClientMax }, () => slowReader(path, request))
    return { readers, [Symbol.dispose]: () => readers.forEach(({ socket }) => void socket.destroy()) }
  }
  const upgrade = (method: string, protocol: string) =>
    `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close, upgrade\r\nUpgrade: ${protocol}\r\n` +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

  test.each([
    ["clients", undefined],
    ["clients that ask for another protocol", upgrade("GET", "custom")],
  ])("by %s that take nothing more, and stays with one that takes its file", async (_, request) => {
    truncateSync(join(home, "program"), 64 * 1024 * 1024)
    using full = fill(request)
    const { readers } = full
    await until("all are under way", () => readers.every(({ head }) => head().includes("200 OK")))
    expect(await isServed()).toBe(false)
    const [lively] = readers
    let rounds = 0
    // Bytes that the kernel keeps for a client count as taken, until its buffers are full.
    await until("the others are cut", async () => {
      await lively?.take(4 * 1024 * 1024)
      rounds++
      own.laterBy(rounds * 61_000)
      return own.connections() <= 1
    })
    expect(rounds).toBeLessThan(8)
    expect(await isServed()).toBe(true)
    expect(await lively?.rest()).toBe(64 * 1024 * 1024 + (lively?.headBytes() ?? 0))
  })

  test.each([
    ["HEAD", `HEAD ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`],
    ["GET that asks for a WebSocket", upgrade("GET", "websocket")],
    ["HEAD that asks for a WebSocket", upgrade("HEAD", "websocket")],
    ["HEAD that asks for another protocol", upgrade("HEAD", "custom")],
  ])("by %s, at once, with its connection open", async (_, request) => {
    addClient("linux-x64", new Uint8Array(64 * 1024 * 1024))
    for (let round = 0; round < 3; round++) {
      using full = fill(request)
      await until("all are answered", () => full.readers.every(({ head }) => head().includes("HTTP/1.1 ")))
      await until("another is served", isServed, { deadlineMs: 500 })
    }
  })
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

/** Takes the first bytes of an answer and no more, until it is told to. */
function slowReader(
  path: string,
  request = `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
) {
  let text = ""
  let headBytes = 0
  let received = 0
  let wanted = 1
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(own.url).port) }, () =>
    socket.write(request),
  )
  socket.on("error", () => undefined)
  socket.on("data", (bytes) => {
    if (text === "") {
      text = bytes.toString("latin1", 0, 20)
      headBytes = bytes.indexOf("\r\n\r\n") + 4
    }
    received += bytes.length
    if (received >= wanted) socket.pause()
  })
  /** So many bytes more; resolves with how many came in all. */
  const take = async (bytes: number) => {
    wanted = received + bytes
    socket.resume()
    await until("they come", () => received >= wanted || socket.destroyed)
    return received
  }
  /** Bytes that come until the connection ends. */
  const rest = () =>
    new Promise<number>((resolve) => {
      wanted = Number.POSITIVE_INFINITY
      socket.on("close", () => resolve(received))
      socket.resume()
    })
  return { socket, head: () => text, headBytes: () => headBytes, take, rest }
}
