/**
 * The front between a client and the API, whatever the API does with the request: bodies, ends, who waits for
 * whom.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { once } from "node:events"
import { createConnection } from "node:net"
import type { Core } from "../../src/core/core.ts"
import { StreamedAnswer } from "../../src/http/streamed-answer.ts"
import type { Api } from "../../src/proxy/api-request.ts"
import { until } from "../support/installation.ts"
import { type ServedApp, serveApp } from "../support/served-app.ts"
import { connectRaw, get, sendRaw } from "./stage.ts"

let served: ServedApp
let api: (...given: Parameters<Api>) => Promise<Response | StreamedAnswer>
const requests: string[] = []
const bugs: unknown[] = []

beforeEach(() => {
  requests.length = 0
  bugs.length = 0
  const log = { info() {}, warn() {}, error: (fields: object) => void bugs.push(fields) }
  served = serveApp({ log, onUnpublished: new Set() } as unknown as Core, async (request, body) => {
    requests.push(`${request.method} ${new URL(request.url).pathname}`)
    const answer = await api(request, body)
    return answer instanceof Response
      ? { response: answer, bytes: undefined }
      : { response: new Response(null, { headers: answer.headers }), bytes: answer }
  })
})
afterEach(async () => {
  await served[Symbol.asyncDispose]()
  expect(bugs).toEqual([])
})

const send = (bytes: string, until?: RegExp) => sendRaw(served.front.port, bytes, until && { until })
const ask = (options: { method?: string; version?: string; headers?: string[] } = {}) =>
  get("/x", { host: "localhost", ...options }).replace("GET", options.method ?? "GET")
const closing = ["Connection: close"]

async function readAll(body: AsyncIterable<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = []
  for await (const piece of body) pieces.push(piece)
  return Buffer.concat(pieces).toString()
}

/** Pieces until there are no more; the test sees whether it was closed. */
function streamed(next: () => Promise<Uint8Array | undefined>): {
  answer: StreamedAnswer
  closed: () => number
} {
  let closed = 0
  const answer = new StreamedAnswer({
    headers: { "content-type": "text/plain" },
    next,
    onClosed: () => {
      closed++
    },
  })
  return { answer, closed: () => closed }
}

function pieces(...texts: string[]): ReturnType<typeof streamed> {
  return streamed(async () => {
    const text = texts.shift()
    return text === undefined ? undefined : Buffer.from(text)
  })
}

const never = () => new Promise<never>(() => undefined)

test.each([
  ["a length", "Content-Length: 5", "hello"],
  ["chunks", "Transfer-Encoding: chunked", "2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"],
])("a body with %s arrives whole, and the next request is another one", async (_what, header, body) => {
  api = async (_request, read) => new Response(await readAll(read))
  const answer = await send(ask({ method: "PUT", headers: [header] }) + body + ask({ headers: closing }))
  expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n[\s\S]*\r\n\r\nhelloHTTP\/1.1 200 OK\r\n/)
  expect(requests).toEqual(["PUT /x", "GET /x"])
})

test("a client is told to send its body only when that is wanted", async () => {
  const headers = ["Content-Length: 5", "Expect: 100-continue"]
  api = async () => new Response("no", { status: 413 })
  const refused = await send(ask({ method: "PUT", headers }))
  expect(refused).toStartWith("HTTP/1.1 413 ")
  expect(refused.toLowerCase()).toContain("connection: close")

  api = async (_request, body) => new Response(await readAll(body))
  const client = await connectRaw(
    served.front.port,
    ask({ method: "PUT", headers: [...headers, ...closing] }),
  )
  await until("it is told", () => client.answer() === "HTTP/1.1 100 Continue\r\n\r\n")
  client.socket.write("hello")
  await until("it is answered", () => client.answer().endsWith("hello"))
})

test("a body that nobody wanted and is here is skipped; one that is not ends the connection", async () => {
  api = async () => new Response("ok")
  const headers = ["Content-Length: 5"]
  const both = await send(`${ask({ method: "PUT", headers })}hello${ask({ headers: closing })}`)
  expect(both.match(/200 OK/g)).toHaveLength(2)
  const half = await send(`${ask({ method: "PUT", headers })}hel`)
  expect(half.toLowerCase()).toContain("connection: close")
  expect(half).toEndWith("ok")
  const malformed = await send(`${ask({ method: "PUT", headers: ["Transfer-Encoding: chunked"] })}zz\r\n`)
  expect(malformed.toLowerCase()).toContain("connection: close")
  expect(requests).toEqual(["PUT /x", "GET /x", "PUT /x", "PUT /x"])
})

test("a body that is malformed is refused while it is read, and its reader is told", async () => {
  const failure = Promise.withResolvers<unknown>()
  api = async (_request, body) => {
    await readAll(body).catch(failure.resolve)
    return never()
  }
  const answer = await send(
    `${ask({ method: "PUT", headers: ["Transfer-Encoding: chunked"] })}zz\r\n${ask()}`,
  )
  expect(answer).toMatch(/^HTTP\/1.1 400 [\s\S]*a chunk's size is malformed/)
  expect(await failure.promise).toMatchObject({ code: "invalid" })
  expect(requests).toEqual(["PUT /x"])
})

test("an upload is answered before its end, and the connection is closed in order", async () => {
  api = async () => new Response("big", { status: 413 })
  const headers = ["Content-Length: 100000000"]
  expect(await send(ask({ method: "PUT", headers }) + "a".repeat(1_000_000))).toEndWith("big")
})

test("a reader that waits makes its client wait", async () => {
  const go = Promise.withResolvers<void>()
  const bytes = 32 * 1024 * 1024
  let received = 0
  api = async (_request, body) => {
    await go.promise
    for await (const piece of body) received += piece.length
    return new Response("ok")
  }
  let left = bytes
  let answer = ""
  const chunk = Buffer.alloc(1024 * 1024)
  const fill = (socket: Bun.Socket) => {
    while (left > 0) {
      const written = socket.write(chunk.subarray(0, Math.min(chunk.length, left)))
      left -= Math.max(written, 0)
      if (written < chunk.length) return
    }
  }
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: served.front.port,
    socket: {
      data(_, piece) {
        answer += piece.toString()
      },
      drain: fill,
    },
  })
  socket.write(ask({ method: "PUT", headers: [`Content-Length: ${bytes}`, ...closing] }))
  fill(socket)
  await until("the request is there", () => requests.length === 1)
  let before = -1
  await until("the client waits", () => {
    const isStill = left === before
    before = left
    return isStill
  })
  // The kernel buffers a few megabytes of a connection on this host.
  expect(left).toBeGreaterThan(bytes / 2)
  go.resolve()
  await until("it is answered", () => answer.endsWith("ok"))
  expect(received).toBe(bytes)
})

test("a client that takes nothing makes the answer wait", async () => {
  let given = 0
  const piece = Buffer.alloc(1024 * 1024)
  const { answer, closed } = streamed(async () => {
    given += piece.length
    return piece
  })
  api = async () => answer
  const socket = await Bun.connect({ hostname: "127.0.0.1", port: served.front.port, socket: { data() {} } })
  socket.pause()
  socket.write(ask())
  let before = -1
  await until("the answer waits", () => {
    const isStill = given > 0 && given === before
    before = given
    return isStill
  })
  expect(given).toBeLessThan(32 * 1024 * 1024)
  socket.terminate()
  await until("it is closed", () => closed() === 1)
})

test("a streamed answer's head goes out before its first byte, and every piece at once", async () => {
  const waiting = [1, 2].map(() => Promise.withResolvers<Uint8Array | undefined>())
  let reads = 0
  const { answer, closed } = streamed(() => waiting[reads++]?.promise ?? never())
  api = async () => answer
  const client = await connectRaw(served.front.port, ask())
  await until("the head is there", () => client.answer().endsWith("\r\n\r\n"))
  expect(client.answer().toLowerCase()).toContain("transfer-encoding: chunked")
  waiting[0]?.resolve(Buffer.from("one"))
  await until("the piece is there", () => client.answer().endsWith("\r\n3\r\none\r\n"))
  expect(closed()).toBe(0)
  waiting[1]?.resolve(undefined)
  await until("the end is there", () => client.answer().endsWith("\r\n0\r\n\r\n"))
  expect(closed()).toBe(1)
  expect(client.isClosed()).toBe(false)
})

test("HTTP/1.0 gets a streamed answer until the connection's end", async () => {
  api = async () => pieces("one", "two").answer
  const answer = await send(ask({ version: "1.0", headers: ["Connection: keep-alive"] }))
  expect(answer).toMatch(/\r\n\r\nonetwo$/)
  expect(answer.toLowerCase()).not.toContain("transfer-encoding")
})

test("an answer that a client has left before is known to reach nobody; one that ended only its side has it", async () => {
  const answered = Promise.withResolvers<void>()
  let signal: AbortSignal | undefined
  api = async (request) => {
    signal = request.signal
    await answered.promise
    return new Response("made", { status: 201 })
  }
  const gone = createConnection(served.front.port, "127.0.0.1")
  gone.write(ask({ method: "POST" }))
  await until("it was asked", () => signal !== undefined)
  gone.destroy()
  await once(gone, "close")
  answered.resolve()
  await until("the API is told", () => signal?.aborted === true)

  signal = undefined
  const halfOpen = createConnection({ port: served.front.port, host: "127.0.0.1", allowHalfOpen: true })
  halfOpen.end(ask({ method: "POST" }))
  expect(await readAll(halfOpen)).toEndWith("made")
  expect((signal as AbortSignal | undefined)?.aborted).toBe(false)
})

test("HEAD and 204 have no body, and what would have streamed it is closed", async () => {
  const { answer, closed } = pieces("one")
  api = async (request) => (request.method === "HEAD" ? answer : new Response(null, { status: 204 }))
  const both = await send(ask({ method: "HEAD" }) + ask({ headers: closing }))
  expect(both).toMatch(/^HTTP\/1.1 200 OK\r\n[\s\S]*?\r\n\r\nHTTP\/1.1 204 No Content\r\n[\s\S]*?\r\n\r\n$/)
  expect(both.toLowerCase()).not.toContain("content-length")
  expect(closed()).toBe(1)
})

test("an answer that fails on its way is no whole answer", async () => {
  const texts = ["one"]
  api = async () =>
    streamed(async () => {
      const text = texts.shift()
      if (text === undefined) throw new Error("broken")
      return Buffer.from(text)
    }).answer
  const answer = await send(ask())
  expect(answer).toContain("one")
  expect(answer).not.toEndWith("0\r\n\r\n")
})

test.each(["end", "terminate"] as const)("a client that leaves is noticed (%s)", async (leave) => {
  for (const phase of ["body", "handler", "answer"] as const) {
    const aborted = Promise.withResolvers<void>()
    const failure = Promise.withResolvers<unknown>()
    const { answer, closed } = streamed(never)
    api = async (request, body) => {
      request.signal.addEventListener("abort", () => aborted.resolve())
      if (phase === "body") await readAll(body).catch(failure.resolve)
      if (phase === "handler") await never()
      return answer
    }
    requests.length = 0
    const client = await connectRaw(
      served.front.port,
      phase === "body" ? `${ask({ method: "PUT", headers: ["Content-Length: 5"] })}he` : ask(),
    )
    await until("it is asked", () => requests.length === 1)
    client.socket[leave]()
    await aborted.promise
    if (phase === "body") expect(await failure.promise).toMatchObject({ code: "invalid" })
    if (phase !== "handler") await until("the answer is closed", () => closed() === 1)
    await until("the connection is closed", () => served.front.connectionCount === 0)
  }
})

test("a body that stops coming gets 408; a handler that takes its time does not", async () => {
  api = async (request, body) => {
    if (request.method === "POST") return never()
    return new Response(await readAll(body))
  }
  const headers = ["Content-Length: 5"]
  const working = await connectRaw(served.front.port, `${ask({ method: "POST", headers })}he`)
  const stuck = await connectRaw(served.front.port, `${ask({ method: "PUT", headers })}he`)
  await until("both are asked", () => requests.length === 2)
  served.front.check(performance.now() + 590_000)
  served.front.check(performance.now() + 610_000)
  await until("it is refused", () => stuck.answer().startsWith("HTTP/1.1 408 "))
  expect(working.answer()).toBe("")
  expect(working.isClosed()).toBe(false)
})

test.each(["FOO", "get", "Post", "TRACK"])("the method %s is no other one", async (method) => {
  api = async () => new Response("ok")
  expect(await send(ask({ method, headers: closing }))).toStartWith("HTTP/1.1 501 ")
  expect(requests).toEqual([])
})

test("stopping the front ends what is asked", async () => {
  const aborted = Promise.withResolvers<void>()
  api = async (request) => {
    request.signal.addEventListener("abort", () => aborted.resolve())
    return never()
  }
  const client = await connectRaw(served.front.port, ask())
  await until("it is asked", () => requests.length === 1)
  served.front.stop()
  await aborted.promise
  await until("the connection is closed", () => client.isClosed())
})
