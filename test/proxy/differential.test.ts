/**
 * The strict parser against another one, Bun's own server: whatever passes the front is understood by the other as the
 * same single request. The front may refuse more, never less.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import type { Server } from "bun"
import fc from "fast-check"
import { get, openStage, type Stage, sendRaw } from "./stage.ts"

let stage: Stage
let app: Server<undefined>
const seen: { method: string; path: string; body: string }[] = []

beforeAll(async () => {
  stage = await openStage()
  app = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url)
      seen.push({ method: request.method, path: pathname + search, body: await request.text() })
      return new Response("ok")
    },
  })
  await stage.publish(app.port ?? 0)
})
afterAll(async () => {
  await app.stop(true)
  await stage[Symbol.asyncDispose]()
})

const marker = get("/marker", { headers: ["Connection: close"] })
const blank = fc.constantFrom("", " ", "\t", "\x0b", "\r", "\n", "\0", "\r\n ", ",", ";", "+", "0")
const lengths = fc.constantFrom(
  "0",
  "4",
  "5",
  "05",
  "+5",
  "0x5",
  "5,5",
  "5 5",
  "-1",
  "5.0",
  "99999999999999999999",
  "",
)
const encodings = fc.constantFrom(
  "chunked",
  "Chunked",
  "gzip, chunked",
  "chunked, chunked",
  "identity",
  "xchunked",
  "chunked ",
  '"chunked"',
  "",
)
const headerName = fc.constantFrom(
  "Content-Length",
  "content-length",
  "Transfer-Encoding",
  "TRANSFER-ENCODING",
  "Content_Length",
  "X-A",
  "Connection",
)
const header = fc
  .record({
    name: headerName,
    before: blank,
    after: blank,
    end: blank,
    length: lengths,
    encoding: encodings,
    eol: fc.constantFrom("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n"),
  })
  .map(({ name, before, after, end, length, encoding, eol }) => {
    const isEncoding = name.toLowerCase().startsWith("transfer")
    const value = isEncoding ? encoding : name === "Connection" ? "keep-alive" : length
    // Most headers are well formed, so that more than one thing is rarely wrong.
    const isOdd = (before.charCodeAt(0) + after.length * 7) % 3 === 0
    return isOdd ? `${name}${before}:${after}${value}${end}${eol}` : `${name}: ${value}\r\n`
  })
const body = fc.constantFrom(
  "",
  "hello",
  "5\r\nhello\r\n0\r\n\r\n",
  "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
  "5\nhello\n0\n\n",
  "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
  "0005\r\nhello\r\n00\r\n\r\n",
)
const request = fc
  .record({
    method: fc.constantFrom("GET", "POST", "PUT"),
    version: fc.constantFrom("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"),
    headers: fc.array(header, { maxLength: 3 }),
    body,
  })
  .map(
    (parts) =>
      `${parts.method} /first ${parts.version}\r\nHost: app.localhost\r\n${parts.headers.join("")}\r\n${parts.body}`,
  )

/** The requests that were answered with 200, as the application saw them. */
async function answered(port: number, bytes: string): Promise<typeof seen> {
  seen.length = 0
  const answer = await sendRaw(port, bytes)
  return seen.slice(0, [...answer.matchAll(/HTTP\/1\.[01] 200 /g)].length)
}

test("whatever passes is the same requests to both, from the first on", async () => {
  let compared = 0
  await fc.assert(
    fc.asyncProperty(request, async (raw) => {
      const byFront = await answered(stage.port, raw + marker)
      if (byFront.length === 0) return
      const byOther = await answered(app.port ?? 0, raw + marker)
      // Either may end the connection earlier; what both have answered is the same.
      const both = Math.min(byFront.length, byOther.length)
      expect(byFront.slice(0, both)).toEqual(byOther.slice(0, both))
      if (byOther.length > 0) compared++
    }),
    { numRuns: 400 },
  )
  expect(compared).toBeGreaterThan(40)
}, 60_000)
