/** The grammar of heads: what is refused, and that whatever passes is what an independent parser reads. */

import { describe, expect, test } from "bun:test"
import fc from "fast-check"
import { findHeadEnd, HeadError, headLimits, parseRequestHead, parseResponseHead } from "./head.ts"

const request = (...lines: string[]) =>
  parseRequestHead(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"))
const response = (...lines: string[]) =>
  parseResponseHead(Buffer.from(`${lines.join("\r\n")}\r\n\r\n`, "latin1"), "GET")

function statusOf(parse: () => unknown): number | "accepted" {
  try {
    parse()
    return "accepted"
  } catch (error) {
    if (error instanceof HeadError) return error.status
    throw error
  }
}

describe("requests that could be understood in two ways are refused", () => {
  const host = "Host: a.localhost"
  const refused: [string, string[]][] = [
    ["a length and chunks", [host, "Content-Length: 5", "Transfer-Encoding: chunked"]],
    ["chunks and a length", [host, "Transfer-Encoding: chunked", "Content-Length: 5"]],
    ["two encodings", [host, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]],
    ["a list of encodings", [host, "Transfer-Encoding: gzip, chunked"]],
    ["chunked and identity", [host, "Transfer-Encoding: chunked, identity"]],
    ["an unknown encoding", [host, "Transfer-Encoding: xchunked"]],
    ["an encoding with a vertical tab", [host, "Transfer-Encoding: \x0bchunked"]],
    ["an encoding with a parameter", [host, "Transfer-Encoding: chunked;q=1"]],
    ["a quoted encoding", [host, 'Transfer-Encoding: "chunked"']],
    ["an empty encoding", [host, "Transfer-Encoding:"]],
    ["a space before the colon", [host, "Transfer-Encoding : chunked"]],
    ["a tab before the colon", [host, "Content-Length\t: 5"]],
    ["two lengths that differ", [host, "Content-Length: 5", "Content-Length: 6"]],
    ["two lengths that agree", [host, "Content-Length: 5", "Content-Length: 5"]],
    ["a list of lengths", [host, "Content-Length: 5, 5"]],
    ["a signed length", [host, "Content-Length: +5"]],
    ["a negative length", [host, "Content-Length: -5"]],
    ["a hexadecimal length", [host, "Content-Length: 0x5"]],
    ["a length with an underscore", [host, "Content-Length: 1_0"]],
    ["a length with an exponent", [host, "Content-Length: 1e3"]],
    ["a length with a space within", [host, "Content-Length: 1 0"]],
    ["an empty length", [host, "Content-Length:"]],
    ["a length beyond all numbers", [host, "Content-Length: 99999999999999999999"]],
    ["a folded header", [host, "X-A: one", " two"]],
    ["a header folded by a tab", [host, "X-A: one", "\ttwo"]],
    ["a folded first header", [" Host: a", host]],
    ["a bare carriage return in a value", [host, "X-A: one\rX-B: two"]],
    ["a bare line feed in a value", [host, "X-A: one\nX-B: two"]],
    ["a NUL in a value", [host, "X-A: one\0two"]],
    ["a NUL in a name", [host, "X-A\0: one"]],
    ["a header without colon", [host, "X-A"]],
    ["a header without name", [host, ": one"]],
    ["a name with a bracket", [host, "X[A]: one"]],
    ["a name with a byte above ASCII", [host, "X-\xe4: one"]],
    ["no host", ["X-A: one"]],
    ["two hosts", [host, "Host: b.localhost"]],
    ["the same host twice", [host, host]],
    ["an empty host", ["Host:"]],
    ["a list of hosts", ["Host: a.localhost, b.localhost"]],
    ["a host with a user", ["Host: user@a.localhost"]],
    ["a host with a path", ["Host: a.localhost/x"]],
    ["a host with a space", ["Host: a.localhost b"]],
    ["a host beyond ASCII", ["Host: \xe4.localhost"]],
    ["a host with a malformed port", ["Host: a.localhost:80a"]],
  ]
  test.each(refused)("%s", (_what, lines) => {
    expect(statusOf(() => request("POST / HTTP/1.1", ...lines))).toBe(400)
  })

  test.each([
    ["no version", "GET /"],
    ["no address", "GET HTTP/1.1"],
    ["two spaces", "GET  / HTTP/1.1"],
    ["a tab", "GET\t/ HTTP/1.1"],
    ["a space at the end", "GET / HTTP/1.1 "],
    ["a space at the start", " GET / HTTP/1.1"],
    ["a space in the address", "GET /a b HTTP/1.1"],
    ["a control character in the address", "GET /\x01 HTTP/1.1"],
    ["a fragment", "GET /#a HTTP/1.1"],
    ["a method that is no token", "GE(T / HTTP/1.1"],
    ["a long method", `${"A".repeat(33)} / HTTP/1.1`],
    ["a lower-case version", "GET / http/1.1"],
    ["a version with a prefix", "GET / XHTTP/1.1"],
    ["a relative address", "GET a HTTP/1.1"],
    ["a tunnel", "CONNECT a.localhost:80 HTTP/1.1"],
    ["an asterisk", "GET * HTTP/1.1"],
    ["an absolute address of another host", "GET http://b.localhost/ HTTP/1.1"],
    ["an absolute address with a user", "GET http://u@a.localhost/ HTTP/1.1"],
    ["an absolute address of another scheme", "GET file:///etc/passwd HTTP/1.1"],
  ])("a request line with %s", (_what, line) => {
    expect(statusOf(() => request(line, host))).toBe(400)
  })

  test("an encoding in HTTP/1.0", () => {
    expect(statusOf(() => request("POST / HTTP/1.0", host, "Transfer-Encoding: chunked"))).toBe(400)
  })

  test("other versions, and what is too large, have their own answers", () => {
    expect(statusOf(() => request("GET / HTTP/2.0", host))).toBe(505)
    expect(statusOf(() => request(`GET /${"a".repeat(headLimits.targetBytesMax)} HTTP/1.1`, host))).toBe(414)
    expect(
      statusOf(() => request("GET / HTTP/1.1", host, ...Array(headLimits.headersMax).fill("A: b"))),
    ).toBe(431)
    expect(statusOf(() => findHeadEnd(Buffer.alloc(headLimits.bytesMax, 65), 0))).toBe(431)
  })

  test("a line feed without carriage return, as soon as it is seen", () => {
    expect(statusOf(() => findHeadEnd(Buffer.from("GET / HTTP/1.1\n"), 0))).toBe(400)
    expect(statusOf(() => findHeadEnd(Buffer.from("GET / HTTP/1.1\r\nHost: a\n\n"), 0))).toBe(400)
    expect(statusOf(() => findHeadEnd(Buffer.from("\n"), 0))).toBe(400)
  })
})

test("what is allowed is read as it is", () => {
  expect(
    request("GET /a?b=c HTTP/1.1", "hOST: A.localhost:8080", "X-A:  one two\t ", "Content-Length: 010"),
  ).toMatchObject({
    method: "GET",
    target: "/a?b=c",
    version: "1.1",
    host: "A.localhost:8080",
    headers: [
      ["hOST", "A.localhost:8080"],
      ["X-A", "one two"],
      ["Content-Length", "010"],
    ],
    framing: { kind: "length", bytes: 10 },
  })
  expect(request("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: CHUNKED").framing).toEqual({
    kind: "chunked",
  })
  expect(request("GET http://a.localhost:80?x HTTP/1.1", "Host: A.localhost:80").target).toBe("/?x")
  expect(request("OPTIONS * HTTP/1.1", "Host: [::1]:8080").target).toBe("*")
})

describe("responses of a hostile guest", () => {
  test.each([
    ["a length and chunks", ["HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"]],
    ["two lengths", ["HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 5"]],
    ["an encoding that is not chunked", ["HTTP/1.1 200 OK", "Transfer-Encoding: gzip"]],
    ["an encoding in HTTP/1.0", ["HTTP/1.0 200 OK", "Transfer-Encoding: chunked"]],
    ["a folded header", ["HTTP/1.1 200 OK", "A: b", " c"]],
    ["a carriage return in a header", ["HTTP/1.1 200 OK", "A: b\rC: d"]],
    ["a status of two digits", ["HTTP/1.1 20 OK"]],
    ["a status of four digits", ["HTTP/1.1 2000 OK"]],
    ["another protocol", ["HTTP/2.0 200 OK"]],
    ["a control character in the reason", ["HTTP/1.1 200 O\x01K"]],
    ["no status line", ["A: b"]],
  ])("%s are refused", (_what, [line = "", ...lines]) => {
    expect(statusOf(() => response(line, ...lines))).toBe(400)
  })

  test("the body's end follows from method, status and headers", () => {
    const head = (line: string, method = "GET") =>
      parseResponseHead(Buffer.from(`${line}\r\nContent-Length: 5\r\n\r\n`), method).framing.kind
    expect(head("HTTP/1.1 200 OK")).toBe("length")
    expect(head("HTTP/1.1 200 OK", "HEAD")).toBe("none")
    expect(head("HTTP/1.1 204 No Content")).toBe("none")
    expect(head("HTTP/1.1 304 Not Modified")).toBe("none")
    expect(head("HTTP/1.1 100 Continue")).toBe("none")
    expect(response("HTTP/1.1 200").framing.kind).toBe("until_close")
  })
})

test("any bytes are either refused or read; nothing else is thrown", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const head = Buffer.concat([
        Buffer.from("GET / HTTP/1.1\r\nHost: a\r\n"),
        bytes,
        Buffer.from("\r\n\r\n"),
      ])
      statusOf(() => parseRequestHead(head))
      statusOf(() => parseResponseHead(head, "GET"))
      statusOf(() => findHeadEnd(head, 0))
    }),
    { numRuns: 2000 },
  )
})

test("what passes goes out again as the same lines", () => {
  const name = fc
    .stringMatching(/^[A-Za-z0-9-]{1,20}$/)
    .filter((one) => !/^(host|content-length|transfer-encoding)$/i.test(one))
  const value = fc.stringMatching(/^[\x21-\x7e]([\x20-\x7e]{0,20}[\x21-\x7e])?$/)
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 20 }), (headers) => {
      const lines = headers.map(([one, two]) => `${one}: ${two}`)
      expect(request("GET / HTTP/1.1", "Host: a", ...lines).headers).toEqual([["Host", "a"], ...headers])
    }),
  )
})

test("where the head ends does not depend on how it arrives", () => {
  const head = Buffer.from("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\nbody\r\n\r\n")
  for (let cut = 0; cut < head.length; cut++) {
    const first = findHeadEnd(head.subarray(0, cut), 0)
    expect(first === -1 ? findHeadEnd(head, cut) : first).toBe(35)
  }
})
