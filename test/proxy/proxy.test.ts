/** Published ports through the real front, on a fake host: what is forwarded, what is refused, and when it ends. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { statSync } from "node:fs"
import { createConnection } from "node:net"
import { AppError } from "@bhatti/contract/errors"
import type { Server } from "bun"
import { destroySandbox } from "../../src/core/destroy.ts"
import { publishPort, unpublishPort } from "../../src/core/publish.ts"
import { startByName, stopByName } from "../../src/core/stop-start.ts"
import { errorCodeOf } from "../../src/lib/error-code.ts"
import { until } from "../support/installation.ts"
import { serveApp } from "../support/served-app.ts"
import { connectRaw, get, openStage, rawServer, type Stage, sendRaw } from "./stage.ts"

let stage: Stage
let app: Server<undefined>

beforeEach(async () => {
  stage = await openStage()
  app = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request, server) {
      const { pathname } = new URL(request.url)
      if (pathname === "/ws")
        return server.upgrade(request) ? undefined : new Response("no upgrade", { status: 400 })
      if (pathname === "/echo") return new Response(request.body)
      if (pathname === "/head") return Response.json(Object.fromEntries(request.headers))
      return new Response(`${request.method} ${pathname}`)
    },
    websocket: { message: (socket, message) => void socket.send(message), maxPayloadLength: 8 * 1024 * 1024 },
  })
  await stage.publish(app.port ?? 0)
})

afterEach(async () => {
  await app.stop(true)
  await stage[Symbol.asyncDispose]()
})

const url = (path: string) => `http://127.0.0.1:${stage.port}${path}`
const host = { host: "app.localhost" }

test("with names of ports a published one answers as PORT-ID too, and no other", async () => {
  await using named = await openStage({ zone: { hasPortNames: true } })
  await named.publish(app.port ?? 0)
  const [sandbox] = await named.core.store.sandboxes.listOf(named.account)
  const digits = sandbox?.id.slice(3) ?? ""
  const statusOf = async (port: number, name: string) =>
    (await fetch(`http://127.0.0.1:${port}/x`, { headers: { host: `${name}.localhost` } })).status
  expect(await statusOf(named.port, `3000-${digits}`)).toBe(200)
  expect(await statusOf(named.port, `3001-${digits}`)).toBe(404)
  expect(await statusOf(named.port, "3000-0123456789abcdef")).toBe(404)
  const asAlias = { port: 3001, alias: `3001-${digits}` }
  const taken = await publishPort(named.core, named.account, "dev", asAlias).catch((error) => error)
  expect(taken).toMatchObject({ code: "invalid" })
  await unpublishPort(named.core, named.account, "dev", { port: 3000 })
  expect(await statusOf(named.port, `3000-${digits}`)).toBe(404)
  expect(await statusOf(stage.port, `3000-${digits}`)).toBe(404)
})

describe("requests", () => {
  test("one comes through and back, and the API answers on the same address", async () => {
    expect(await (await fetch(url("/x"), { headers: host })).text()).toBe("GET /x")
    expect(await (await fetch(url("/health"))).json()).toMatchObject({ status: "ok" })
  })

  test("behind it the API's own socket is for this user alone", () => {
    expect(statSync(stage.apiSocketPath).mode & 0o777).toBe(0o600)
  })

  test.each(["app.localhost", "app.localhost:8080", "APP.LocalHost", "app.localhost.", "app.localhost.:80"])(
    "the host %s leads to the sandbox",
    async (name) => {
      expect(await sendRaw(stage.port, get("/x", { host: name, headers: ["Connection: close"] }))).toEndWith(
        "GET /x",
      )
    },
  )

  test.each([
    ["a.app.localhost", 421],
    ["..localhost", 400],
    ["other.localhost", 404],
    ["äpp.localhost", 400],
    ["app.localhost@127.0.0.1", 400],
    ["app.localhost:x", 400],
    ["app.localhost/x", 400],
    ["app.example.com", 403],
    ["2130706433", 403],
  ])("the host %s gets %d", async (name, status) => {
    const answer = await sendRaw(stage.port, get("/x", { host: name, headers: ["Connection: close"] }))
    expect(answer).toStartWith(`HTTP/1.1 ${status} `)
    expect(answer).not.toContain("GET /x")
  })

  test("a browser is refused with a page, everybody else with JSON", async () => {
    await stage.publish(1, "silent")
    const page = { accept: "text/html,application/xhtml+xml,*/*;q=0.8" }
    for (const [name, status, words] of [
      ["silent", 502, "the sandbox is awake, but nothing listens on the published port"],
      ["other", 404, "nothing is published as &quot;other&quot;"],
    ] as const) {
      const ask = (headers: Record<string, string>, method = "GET") =>
        fetch(url("/x"), { method, headers: { host: `${name}.localhost`, ...headers } })
      const read = await ask(page)
      expect(read.status).toBe(status)
      expect(read.headers.get("content-type")).toBe("text/html; charset=utf-8")
      expect(read.headers.get("content-security-policy")).toBe("default-src 'none'")
      expect(await read.text()).toContain(`<p>${words}</p>`)
      expect(await (await ask(page, "HEAD")).text()).toBe("")
      for (const headers of [{}, { accept: "*/*" }, { accept: "application/json" }]) {
        const { message } = (await (await ask(headers)).json()) as { message: string }
        expect(Bun.escapeHTML(message)).toBe(words)
      }
    }
  })

  test("an absolute address must name the same host", async () => {
    const absolute = (name: string) =>
      sendRaw(stage.port, get(`http://${name}/x`, { headers: ["Connection: close"] }))
    expect(await absolute("app.localhost")).toEndWith("GET /x")
    expect(await absolute("127.0.0.1")).toStartWith("HTTP/1.1 400 ")
  })

  test("pipelined requests are answered in their order, whoever answers them", async () => {
    const requests = [
      get("/1"),
      get("/health", { host: "127.0.0.1" }),
      get("/2"),
      get("/x", { host: "other.localhost" }),
      get("/3", { headers: ["Connection: close"] }),
    ]
    const answer = await sendRaw(stage.port, requests.join(""))
    const order = [...answer.matchAll(/GET \/\d|"status":"ok"|nothing is published/g)]
    expect(order.map(([text]) => text.slice(0, 12))).toEqual([
      "GET /1",
      '"status":"ok',
      "GET /2",
      "nothing is p",
      "nothing is p",
      "GET /3",
    ])
  })

  test("a connection to one application is never another's, nor another client's", async () => {
    const answer = (socket: Bun.Socket<{ received: string }>) =>
      void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    using one = rawServer(answer)
    using other = rawServer(answer)
    await stage.publish(one.port, "one")
    await stage.publish(other.port, "other-one")
    const client = (name: string) =>
      sendRaw(
        stage.port,
        [1, 2, 3, 4, 5, 6]
          .map((number) =>
            get(`/${name}-${number}`, {
              host: `${number % 2 === 1 ? "one" : "other-one"}.localhost`,
              headers: number === 6 ? ["Connection: close"] : [],
            }),
          )
          .join(""),
      )
    const answers = await Promise.all([client("a"), client("b")])
    for (const text of answers) expect([...text.matchAll(/HTTP\/1\.1 200 /g)]).toHaveLength(6)
    const paths = (server: typeof one) =>
      [...server.received.join("").matchAll(/GET (\S+)/g)].map(([, path]) => path).sort()
    expect(paths(one)).toEqual(["/a-1", "/a-3", "/a-5", "/b-1", "/b-3", "/b-5"])
    expect(paths(other)).toEqual(["/a-2", "/a-4", "/a-6", "/b-2", "/b-4", "/b-6"])
    // Requests of different clients never share a connection.
    for (const server of [one, other])
      for (const piece of server.received)
        expect(/GET \/a-/.test(piece) && /GET \/b-/.test(piece)).toBe(false)
  })

  test("HTTP/1.0 is answered and closed, or kept when that is asked for", async () => {
    const closed = await sendRaw(stage.port, get("/x", { version: "1.0" }))
    expect(closed).toContain("Connection: close")
    expect(closed).toEndWith("GET /x")
    const kept = await sendRaw(
      stage.port,
      get("/1", { version: "1.0", headers: ["Connection: keep-alive"] }) + get("/2", { version: "1.0" }),
    )
    expect(kept).toContain("Connection: keep-alive")
    expect(kept).toEndWith("GET /2")
  })

  test("a body of known length and one in chunks arrive whole", async () => {
    const bytes = crypto.getRandomValues(new Uint8Array(3_000_000))
    const whole = await fetch(url("/echo"), { method: "POST", headers: host, body: bytes })
    expect(Bun.hash(await whole.bytes())).toBe(Bun.hash(bytes))
    const stream = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < bytes.length; at += 100_000)
          controller.enqueue(bytes.subarray(at, at + 100_000))
        controller.close()
      },
    })
    const chunked = await fetch(url("/echo"), { method: "POST", headers: host, body: stream })
    expect(Bun.hash(await chunked.bytes())).toBe(Bun.hash(bytes))
  })

  test("chunk extensions and trailers go no further", async () => {
    using upstream = rawServer((socket, received) => {
      if (received.endsWith("0\r\n\r\n")) socket.write("HTTP/1.1 204 No Content\r\n\r\n")
    })
    await stage.publish(upstream.port, "raw")
    const request = [
      "POST / HTTP/1.1",
      "Host: raw.localhost",
      "Trailer: X-Evil",
      "Connection: close",
      "Transfer-Encoding: chunked",
      "",
      "3;evil=1",
      "abc",
      "0",
      "X-Evil: 1",
      "",
      "",
    ].join("\r\n")
    expect(await sendRaw(stage.port, request)).toStartWith("HTTP/1.1 204 ")
    const received = upstream.received.join("")
    expect(received).toEndWith("\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    expect(received.toLowerCase()).not.toContain("evil")
  })

  test("nothing of a refused request reaches the application", async () => {
    using upstream = rawServer((socket) => void socket.write("HTTP/1.1 204 No Content\r\n\r\n"))
    await stage.publish(upstream.port, "raw")
    const refused = [
      "POST / HTTP/1.1\r\nHost: raw.localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: raw.localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
      "POST / HTTP/1.1\r\nHost: raw.localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: raw.localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: raw.localhost\r\nX: a\r\n b\r\n\r\n",
      "GET / HTTP/1.1\nHost: raw.localhost\n\n",
      "GET / HTTP/1.1\r\nHost: raw.localhost\r\nHost: 127.0.0.1\r\n\r\n",
      "\x16\x03\x01\x02\x00",
    ]
    for (const request of refused) expect(await sendRaw(stage.port, request)).toStartWith("HTTP/1.1 400 ")
    expect(upstream.received).toEqual([])
  })

  test("what follows a request refused for its body is not taken for another request", async () => {
    const request = "POST /a HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    const answer = await sendRaw(stage.port, request + get("/smuggled"))
    expect(answer).toStartWith("HTTP/1.1 400 ")
    expect(answer).not.toContain("smuggled")
  })

  test("100-continue is passed on, other expectations are refused", async () => {
    using upstream = rawServer((socket, received) => {
      if (received.endsWith("\r\n\r\n")) socket.write("HTTP/1.1 100 Continue\r\n\r\n")
      if (received.endsWith("hello")) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
    await stage.publish(upstream.port, "raw")
    let answer = ""
    const done = Promise.withResolvers<void>()
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: stage.port,
      socket: {
        open: (opened) =>
          void opened.write(
            "POST / HTTP/1.1\r\nHost: raw.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
          ),
        data(opened, bytes) {
          answer += bytes.toString()
          if (answer === "HTTP/1.1 100 Continue\r\n\r\n") opened.write("hello")
        },
        close: () => done.resolve(),
      },
    })
    await done.promise
    socket.terminate()
    expect(answer).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 OK\r\n[\s\S]*ok$/)
    expect(
      await sendRaw(stage.port, get("/", { headers: ["Expect: more", "Connection: close"] })),
    ).toStartWith("HTTP/1.1 417 ")
  })

  test("answers without a body have none, and the connection goes on", async () => {
    using upstream = rawServer((socket, received) => {
      const [, method = "", path = ""] =
        /(?:^|\r\n\r\n)(\S+) (\S+) HTTP\/1\.1\r\n(?:[^\r\n]+\r\n)*\r\n$/.exec(received) ?? []
      if (method === "HEAD") socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
      else if (path === "/204") socket.write("HTTP/1.1 204 No Content\r\n\r\n")
      else if (path === "/304") socket.write("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")
      else socket.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")
    })
    await stage.publish(upstream.port, "raw")
    const requests = ["HEAD /", "GET /204", "GET /304", "GET /end"].map(
      (line) =>
        `${line} HTTP/1.1\r\nHost: raw.localhost\r\n${line === "GET /end" ? "Connection: close\r\n" : ""}\r\n`,
    )
    const answer = await sendRaw(stage.port, requests.join(""))
    expect([...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual([
      "200",
      "204",
      "304",
      "200",
    ])
    expect(answer).toContain("Content-Length: 1000\r\n\r\nHTTP/1.1 204")
    expect(answer).toEndWith("\r\n\r\nlast")
    // All on one connection to the application.
    expect(upstream.open()).toBeLessThanOrEqual(1)
  })
})

describe("what the application is told", () => {
  async function headersOf(headers: string[]): Promise<Record<string, string>> {
    const answer = await sendRaw(stage.port, get("/head", { headers: [...headers, "Connection: close"] }))
    return JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4))
  }

  test("who the client is is said by the proxy alone", async () => {
    const headers = await headersOf([
      "X-Forwarded-For: 6.6.6.6",
      "X-Forwarded-Proto: https",
      "X-Forwarded-Host: evil",
      "X-Forwarded-User: admin",
      "X_Forwarded_For: 6.6.6.6",
      "X-Real-IP: 6.6.6.6",
      "Forwarded: for=6.6.6.6",
    ])
    expect(headers).toEqual({
      host: "app.localhost",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "app.localhost",
    })
  })

  test("a client cannot have those headers, nor the host, removed", async () => {
    const headers = await headersOf(["Connection: X-Forwarded-For, Host, X-Forwarded-Host"])
    expect(headers).toMatchObject({ host: "app.localhost", "x-forwarded-for": "127.0.0.1" })
  })

  test("headers of one connection end there, the named ones too", async () => {
    using upstream = rawServer(
      (socket) =>
        void socket.write(
          "HTTP/1.1 200 OK\r\nConnection: X-Inner\r\nX-Inner: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-Outer: 1\r\nContent-Length: 0\r\n\r\n",
        ),
    )
    await stage.publish(upstream.port, "raw")
    const names = [
      "Keep-Alive: 5",
      "TE: trailers",
      "Proxy-Authorization: x",
      "Proxy-Connection: x",
      "Upgrade: h2c",
      "HTTP2-Settings: x",
      "X-Named: 1",
      "X-Kept: 1",
    ]
    const answer = await sendRaw(
      stage.port,
      get("/", {
        host: "raw.localhost",
        headers: [...names, "Connection: close, x-named, upgrade, HTTP2-Settings"],
      }),
    )
    const sent = upstream.received.join("").toLowerCase()
    expect(sent).toContain("x-kept: 1")
    for (const name of [
      "keep-alive",
      "\r\nte:",
      "proxy-",
      "upgrade",
      "http2-settings",
      "x-named",
      "connection",
    ])
      expect(sent).not.toContain(name)
    expect(answer).toContain("X-Outer: 1")
    for (const name of ["X-Inner", "Keep-Alive", "Upgrade"]) expect(answer).not.toContain(name)
  })

  test("a trusted proxy in front is believed, and added to", async () => {
    await using trusting = await openStage({ trustedProxies: ["127.0.0.0/8"] })
    await trusting.publish(app.port ?? 0)
    const answer = await sendRaw(
      trusting.port,
      get("/head", {
        headers: [
          "X-Forwarded-For: 1.1.1.1",
          "X-Forwarded-Proto: https",
          "X-Forwarded-Host: a.example",
          "Connection: close",
        ],
      }),
    )
    expect(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4))).toMatchObject({
      "x-forwarded-for": "1.1.1.1, 127.0.0.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "a.example",
    })
  })
})

describe("answers of a bad application", () => {
  const chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
  const badChunks = [
    "-1\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello",
    "99999999999999999999\r\nhello",
    "5\nhello\n0\n\n",
    "zz\r\n",
    "\r\n",
    "5\r\nhello-1\r\n",
    "5\r\nhello\r\n-1\r\n",
  ]

  test.each([
    ["garbage", "garbage\r\n\r\n"],
    ["another protocol", "SSH-2.0-x\r\n"],
    ["a length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"],
    ["a split header", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"],
    ["a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"],
    [
      "an upgrade that nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ["endless interim answers", "HTTP/1.1 102 Processing\r\n\r\n".repeat(100)],
    ["endless headers", `HTTP/1.1 200 OK\r\n${"X: a\r\n".repeat(10_000)}`],
    ["nothing", ""],
    ...badChunks.map((rest) => [`a chunk of ${JSON.stringify(rest)}`, `${chunkedHead}${rest}`]),
  ])("%s becomes 502", async (_what, bytes) => {
    using upstream = rawServer((socket) => {
      socket.write(bytes)
      if (bytes === "") socket.end()
    })
    await stage.publish(upstream.port, "raw")
    const answer = await sendRaw(
      stage.port,
      get("/", { host: "raw.localhost", headers: ["Connection: close"] }),
    )
    expect(answer).toMatch(/HTTP\/1\.1 502 Bad Gateway[\s\S]*"code":"unavailable"/)
    expect(answer).not.toContain("Set-Cookie")
    await until("the bad application's connection is closed", () => upstream.open() === 0, {
      deadlineMs: 2000,
    })
  })

  test("what follows an answer is never given to the next request", async () => {
    using upstream = rawServer(
      (socket) =>
        void socket.write(
          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
    )
    await stage.publish(upstream.port, "raw")
    const answer = await sendRaw(
      stage.port,
      get("/1", { host: "raw.localhost" }) +
        get("/2", { host: "raw.localhost", headers: ["Connection: close"] }),
    )
    expect(answer).not.toContain("evil")
    expect([...answer.matchAll(/ok/g)]).toHaveLength(2)
  })

  test.each(badChunks)("a chunk of %j after the head was passed on breaks the answer off", async (rest) => {
    using upstream = rawServer((socket, received) => {
      if (!received.endsWith("go on")) socket.write(`${chunkedHead}6\r\nbefore\r\n`)
      else socket.write(rest)
    })
    await stage.publish(upstream.port, "raw")
    const request = get("/", { host: "raw.localhost", headers: ["Content-Length: 5"] })
    const connection = await connectRaw(stage.port, request)
    await until("its head has come", () => connection.answer().includes("before\r\n"))
    connection.socket.write("go on")
    await until("it is closed", () => connection.isClosed())
    // The bytes so far arrive, and the end does not.
    expect(connection.answer()).toMatch(
      /^HTTP\/1.1 200 OK\r\n[\s\S]*\r\n\r\n6\r\nbefore\r\n(5\r\nhello\r\n)?$/,
    )
    await until("the application's connection is closed", () => upstream.open() === 0)
  })

  test("one whose client cannot tell a part from the whole is reset", async () => {
    using upstream = rawServer((socket, received) => {
      if (!received.endsWith("go on")) socket.write(`${chunkedHead}6\r\nbefore\r\n`)
      else socket.write("-1\r\n")
    })
    await stage.publish(upstream.port, "raw")
    const request = get("/", { host: "raw.localhost", headers: ["Content-Length: 5"], version: "1.0" })
    const socket = createConnection(stage.port, "127.0.0.1")
    let got = ""
    const failed = new Promise<string>((resolve) => {
      socket.on("error", (error) => resolve(errorCodeOf(error) ?? ""))
      socket.on("end", () => resolve("end"))
    })
    socket.on("data", (bytes) => {
      got += bytes
    })
    socket.write(request)
    await until("its head has come", () => got.includes("before"))
    socket.write("go on")
    expect(await failed).toBe("ECONNRESET")
  })

  test.each([
    ["a length", "Content-Length: 100\r\n\r\nhalf"],
    ["chunks", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
  ])("half an answer by %s is broken off, not ended", async (_what, rest) => {
    using upstream = rawServer((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\n${rest}`)
      socket.end()
    })
    await stage.publish(upstream.port, "raw")
    await expect(
      fetch(url("/"), { headers: { host: "raw.localhost" } }).then((response) => response.text()),
    ).rejects.toThrow()
  })

  test("an answer that ends with its connection comes whole", async () => {
    using upstream = rawServer((socket) => {
      socket.write("HTTP/1.0 200 OK\r\n\r\nall of it")
      socket.end()
    })
    await stage.publish(upstream.port, "raw")
    const response = await fetch(url("/"), { headers: { host: "raw.localhost" } })
    expect(response.headers.get("transfer-encoding")).toBe("chunked")
    expect(await response.text()).toBe("all of it")
  })

  test("a kept connection that the application closes meanwhile is replaced unseen", async () => {
    let count = 0
    using upstream = rawServer((socket) => {
      // The second request on a connection finds it closed.
      if (++count % 2 === 1) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
      else socket.end()
    })
    await stage.publish(upstream.port, "raw")
    const answer = await sendRaw(
      stage.port,
      get("/1", { host: "raw.localhost" }) +
        get("/2", { host: "raw.localhost", headers: ["Connection: close"] }),
    )
    expect([...answer.matchAll(/200 OK/g)]).toHaveLength(2)
    expect(answer).not.toContain("502")
  })

  test("nobody listens: 502 with the next step; the sandbox cannot wake: 503 with Retry-After", async () => {
    await stage.publish(1, "dead")
    const dead = await fetch(url("/"), { headers: { host: "dead.localhost" } })
    expect(dead.status).toBe(502)
    expect(await dead.json()).toMatchObject({
      code: "unavailable",
      hint: expect.stringContaining("start the application"),
    })

    for (const guest of stage.core.guests.values()) guest.close()
    let wakes = 0
    const refuse = () => {
      wakes++
      return Promise.reject(new AppError("unavailable", "no"))
    }
    stage.host.machines.start = refuse
    stage.host.running.clear()
    const resting = await Promise.all(Array.from({ length: 5 }, () => fetch(url("/"), { headers: host })))
    expect(resting.map(({ status }) => status)).toEqual([503, 503, 503, 503, 503])
    expect(resting[0]?.headers.get("retry-after")).toBe("2")
    const wakesBefore = wakes
    expect((await fetch(url("/"), { headers: host })).status).toBe(503)
    expect(wakes).toBe(wakesBefore)
  })

  test("a crowd at the port of a sandbox that does not start has it tried three times, and its owner once more", async () => {
    const aliases = ["one", "two", "three", "four", "five", "six"]
    for (const alias of aliases) await stage.publish(app.port ?? 0, alias)
    await stopByName(stage.core, stage.account, "dev")
    let starts = 0
    const { start } = stage.host.machines
    stage.host.machines.start = async () => {
      starts++
      throw new AppError("unavailable", "no")
    }
    const ask = (alias: string) => fetch(url("/"), { headers: { host: `${alias}.localhost` } })
    const crowd = await Promise.all([...aliases, ...aliases, ...aliases].map(ask))
    expect(new Set(crowd.map(({ status }) => status))).toEqual(new Set([503]))
    expect(crowd.map(({ headers }) => headers.get("retry-after"))).toContain("5")
    expect(starts).toBe(3)

    stage.host.machines.start = start
    await startByName(stage.core, stage.account, "dev", { force: true })
    expect(await (await ask("app")).text()).toBe("GET /")
  })
})

describe("streams", () => {
  test("events arrive when they are sent", async () => {
    let send: (text: string) => void = () => undefined
    const events = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () =>
        new Response(
          new ReadableStream({
            start(controller) {
              send = (text) => controller.enqueue(`data: ${text}\n\n`)
              send("first")
            },
          }),
          { headers: { "content-type": "text/event-stream" } },
        ),
    })
    await stage.publish(events.port ?? 0, "sse")
    const response = await fetch(url("/"), { headers: { host: "sse.localhost" } })
    const reader = response.body?.getReader()
    for (const text of ["first", "second", "third"]) {
      // Each is sent only after the one before has arrived.
      if (text !== "first") send(text)
      expect(Buffer.from((await reader?.read())?.value ?? "").toString()).toBe(`data: ${text}\n\n`)
    }
    await reader?.cancel()
    await until("the client's leaving closes the connection into the guest", () => stage.dialled.size === 0, {
      deadlineMs: 1000,
    })
    await events.stop(true)
  })

  test("a WebSocket echoes text, binary and a mebibyte, and its end reaches both sides", async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${stage.port}/ws`, { headers: host } as never)
    socket.binaryType = "arraybuffer"
    const echo = async (message: string | Uint8Array) => {
      const answered = Promise.withResolvers<unknown>()
      socket.onmessage = ({ data }) => answered.resolve(data)
      socket.send(message)
      return answered.promise
    }
    await new Promise((resolve) => {
      socket.onopen = resolve
    })
    expect(await echo("hello")).toBe("hello")
    const mebibyte = crypto.getRandomValues(new Uint8Array(65_536 * 16).subarray(0, 65_536))
    const large = Buffer.concat(Array(16).fill(mebibyte))
    expect(Bun.hash((await echo(large)) as ArrayBuffer)).toBe(Bun.hash(large))
    socket.close()
    await until("the connection into the guest is closed", () => stage.dialled.size === 0, {
      deadlineMs: 1000,
    })
  })

  test("an upgrade that the application refuses is an answer like any other", async () => {
    using upstream = rawServer(
      (socket) => void socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
    )
    await stage.publish(upstream.port, "raw")
    const upgrade = ["Connection: Upgrade", "Upgrade: websocket"]
    const answer = await sendRaw(
      stage.port,
      get("/ws", { host: "raw.localhost", headers: upgrade }) + get("/x", { headers: ["Connection: close"] }),
    )
    expect(answer).toMatch(/^HTTP\/1.1 403 Forbidden\r\n[\s\S]*no/)
    expect(answer).toEndWith("GET /x")
  })

  test("an upgrade is a raw tunnel with two ends", async () => {
    let upstreamEnded = false
    const tunnel = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        data(socket, bytes) {
          if (bytes.toString().startsWith("GET"))
            socket.write(
              "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\nhello",
            )
          else socket.write(bytes)
        },
        end(socket) {
          upstreamEnded = true
          socket.write("after your end")
          socket.shutdown()
        },
      },
    })
    await stage.publish(tunnel.port, "raw")
    let received = ""
    const closed = Promise.withResolvers<void>()
    await Bun.connect({
      hostname: "127.0.0.1",
      port: stage.port,
      allowHalfOpen: true,
      socket: {
        open: (socket) =>
          void socket.write(
            get("/", { host: "raw.localhost", headers: ["Connection: upgrade", "Upgrade: custom"] }),
          ),
        data(socket, bytes) {
          received += bytes.toString()
          if (received.endsWith("hello")) socket.write("\0\xff raw")
          if (received.endsWith("raw")) socket.shutdown()
        },
        close: () => closed.resolve(),
      },
    })
    await closed.promise
    expect(upstreamEnded).toBe(true)
    expect(received).toEndWith("after your end")
    tunnel.stop(true)
  })

  test("a client that has ended its side still gets a prompt answer", async () => {
    let answer = ""
    const closed = Promise.withResolvers<void>()
    await Bun.connect({
      hostname: "127.0.0.1",
      port: stage.port,
      allowHalfOpen: true,
      socket: {
        open(socket) {
          socket.write(get("/x", { version: "1.0" }))
          socket.shutdown()
        },
        data(_, bytes) {
          answer += bytes.toString()
        },
        close: () => closed.resolve(),
      },
    })
    await closed.promise
    expect(answer).toEndWith("GET /x")
  })

  test("a client that leaves without an answer frees the application within a second", async () => {
    using upstream = rawServer(() => undefined)
    await stage.publish(upstream.port, "raw")
    for (const leave of ["end", "terminate"] as const) {
      const socket = await Bun.connect({ hostname: "127.0.0.1", port: stage.port, socket: { data() {} } })
      socket.write(get("/", { host: "raw.localhost" }))
      await until("the application has the request", () => upstream.open() === 1)
      const leftAt = performance.now()
      socket[leave]()
      await until("the application's connection is closed", () => upstream.open() === 0)
      expect(performance.now() - leftAt).toBeLessThan(1000)
    }
  })

  test("an upload whose client leaves is broken off", async () => {
    using upstream = rawServer(() => undefined)
    await stage.publish(upstream.port, "raw")
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: stage.port, socket: { data() {} } })
    socket.write("POST / HTTP/1.1\r\nHost: raw.localhost\r\nContent-Length: 100000\r\n\r\nhalf")
    await until("the application has a part", () => upstream.received.join("").endsWith("half"))
    socket.end()
    await until("the application's connection is closed", () => upstream.open() === 0, { deadlineMs: 1000 })
  })

  test("an answer before the request's end is given, and the connection closed in order", async () => {
    using upstream = rawServer(
      (socket) => void socket.write("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"),
    )
    await stage.publish(upstream.port, "raw")
    const answer = await sendRaw(
      stage.port,
      `POST / HTTP/1.1\r\nHost: raw.localhost\r\nContent-Length: 100000000\r\n\r\n${"a".repeat(1_000_000)}`,
    )
    expect(answer).toEndWith("big")
  })

  test("a thousand clients that leave in the middle leave nothing", async () => {
    using flood = rawServer((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
      socket.write(new Uint8Array(500_000))
    })
    await stage.publish(flood.port, "flood")
    for (let round = 0; round < 50; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const got = Promise.withResolvers<void>()
          const socket = await Bun.connect({
            hostname: "127.0.0.1",
            port: stage.port,
            socket: { data: () => got.resolve(), close: () => got.resolve() },
          })
          socket.write(get("/", { host: "flood.localhost" }))
          await got.promise
          socket.terminate()
        }),
      )
    }
    const isOpen = () => stage.dialled.size > 0 || stage.front.connectionCount > 0 || flood.open() > 0
    await until("nothing is open", () => !isOpen(), { deadlineMs: 2000 })
  }, 120_000)
})

describe("what ends with its alias", () => {
  async function openStream(): Promise<{ closed: Promise<void>; upstream: ReturnType<typeof rawServer> }> {
    const upstream = rawServer(
      (socket) => void socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome"),
    )
    await stage.publish(upstream.port, "raw")
    const closed = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: stage.port,
      socket: { data: () => begun.resolve(), close: () => closed.resolve() },
    })
    socket.write(get("/", { host: "raw.localhost" }))
    await begun.promise
    return { closed: closed.promise, upstream }
  }

  test("unpublishing closes what is open, and answers 404 at once", async () => {
    const { closed, upstream } = await openStream()
    await unpublishPort(stage.core, stage.account, "dev", { port: 3001 })
    await closed
    await until("the application's connection is closed", () => upstream.open() === 0, { deadlineMs: 1000 })
    expect((await fetch(url("/"), { headers: { host: "raw.localhost" } })).status).toBe(404)
    expect((await fetch(url("/x"), { headers: host })).status).toBe(200)
    upstream[Symbol.dispose]()
  })

  test("unpublishing closes what is open, whichever of several fronts it came through", async () => {
    const { closed, upstream } = await openStream()
    await using _second = serveApp(stage.core, () => Promise.reject(new Error("this front serves no API")))
    await unpublishPort(stage.core, stage.account, "dev", { port: 3001 })
    await closed
    upstream[Symbol.dispose]()
  })

  test("one of a port's aliases ends with what is open under it; the other's connections stay", async () => {
    const { closed, upstream } = await openStream()
    await publishPort(stage.core, stage.account, "dev", { port: 3001, alias: "second" })
    let got = ""
    let isClosed = false
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port: stage.port,
      socket: {
        data(_, bytes) {
          got += bytes
        },
        close() {
          isClosed = true
        },
      },
    })
    socket.write(get("/", { host: "second.localhost" }))
    await until("its stream has begun", () => got.endsWith("some"))
    await unpublishPort(stage.core, stage.account, "dev", { port: 3001, alias: "raw" })
    await closed
    await until("only one connection is left", () => upstream.open() === 1, { deadlineMs: 1000 })
    expect((await fetch(url("/"), { headers: { host: "raw.localhost" } })).status).toBe(404)
    expect(isClosed).toBe(false)
    await unpublishPort(stage.core, stage.account, "dev", { port: 3001 })
    await until("that ends, too", () => isClosed && upstream.open() === 0, { deadlineMs: 1000 })
    upstream[Symbol.dispose]()
  })

  test("destroying the sandbox does the same for all its ports", async () => {
    const { closed, upstream } = await openStream()
    await destroySandbox(stage.core, stage.account, "dev")
    await closed
    expect((await fetch(url("/"), { headers: { host: "raw.localhost" } })).status).toBe(404)
    expect((await fetch(url("/"), { headers: host })).status).toBe(404)
    upstream[Symbol.dispose]()
  })
})

describe("limits", () => {
  async function statuses(
    limited: Stage,
    count: number,
    headers: (index: number) => Record<string, string>,
  ): Promise<number[]> {
    const all: number[] = []
    for (let index = 0; index < count; index++) {
      const response = await fetch(`http://127.0.0.1:${limited.port}/x`, { headers: headers(index) })
      if (response.status === 429) expect(response.headers.get("retry-after")).toBe("60")
      await response.body?.cancel()
      all.push(response.status)
    }
    return all
  }
  const small = { burst: 3, per_minute: 1 }

  test("of a client hold, whatever it says about itself", async () => {
    await using limited = await openStage({ rateLimits: { proxy_client: small } })
    await limited.publish(app.port ?? 0)
    const forged = (index: number) => ({ ...host, "x-forwarded-for": `1.1.1.${index}` })
    expect(await statuses(limited, 5, forged)).toEqual([200, 200, 200, 429, 429])
  })

  test("of each client behind a trusted proxy hold apart", async () => {
    await using limited = await openStage({
      rateLimits: { proxy_client: small },
      trustedProxies: ["127.0.0.1"],
    })
    await limited.publish(app.port ?? 0)
    const two = (index: number) => ({ ...host, "x-forwarded-for": `1.1.1.${index % 2}` })
    expect(await statuses(limited, 8, two)).toEqual([200, 200, 200, 200, 200, 200, 429, 429])
  })

  test("of an alias and of all hold", async () => {
    await using limited = await openStage({
      rateLimits: { proxy_alias: small, proxy_total: { burst: 5, per_minute: 1 } },
    })
    await limited.publish(app.port ?? 0)
    await limited.publish(app.port ?? 0, "second")
    expect(await statuses(limited, 4, () => host)).toEqual([200, 200, 200, 429])
    expect(await statuses(limited, 3, () => ({ host: "second.localhost" }))).toEqual([200, 200, 429])
    // The API is not behind these.
    expect((await fetch(`http://127.0.0.1:${limited.port}/health`)).status).toBe(200)
  })
})
