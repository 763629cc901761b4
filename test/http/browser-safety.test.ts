/** A web page cannot use the API through its visitor's browser, and nobody can ask without end. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { ErrorBody } from "../../src/contract/system.ts"
import { openStage, type Stage } from "../proxy/stage.ts"

let stage: Stage

beforeAll(async () => {
  stage = await openStage({
    domain: "example.com",
    apiHosts: ["api.example.com"],
    rateLimits: { create: { burst: 2, per_minute: 1 }, exec: { burst: 3, per_minute: 1 } },
  })
})
afterAll(() => stage[Symbol.asyncDispose]())

function call(
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: string,
): Promise<Response> {
  return fetch(`http://127.0.0.1:${stage.port}${path}`, {
    method,
    headers: { authorization: `Bearer ${stage.key}`, ...headers },
    ...(body !== undefined && { body }),
  })
}

describe("the Host header", () => {
  test.each([
    "127.0.0.1",
    "192.0.2.7:8080",
    "[::1]:8080",
    "localhost",
    "LOCALHOST:9",
    "localhost.",
    "example.com",
    "example.com:443",
    "api.example.com",
  ])("%s is the API's", async (host) => {
    expect((await call("GET", "/sandboxes", { host })).status).toBe(200)
  })

  test.each(["evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "notexample.com", "0x7f000001"])(
    "%s is refused, with a valid key too",
    async (host) => {
      const answer = await call("GET", "/sandboxes", { host })
      expect(answer.status).toBe(403)
      expect(ErrorBody.parse(await answer.json()).hint).toContain("api_hosts")
    },
  )
})

describe("the Origin header", () => {
  const host = "localhost:8080"

  test.each([
    "http://evil.test",
    "http://localhost:3000",
    "http://app.localhost:8080",
    "null",
    "nonsense",
    "",
  ])("%s may change nothing and open no socket", async (origin) => {
    expect((await call("POST", "/sandboxes", { host, origin }, "{}")).status).toBe(403)
    expect((await call("DELETE", "/sandboxes/dev", { host, origin })).status).toBe(403)
    const upgrade = { connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13" }
    const socket = { ...upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }
    expect((await call("GET", "/sandboxes/dev/exec/ws", { host, origin, ...socket })).status).toBe(403)
    expect((await call("GET", "/sandboxes/dev", { host })).status).toBe(200)
  })

  test.each([
    ["localhost:8080", "http://localhost:8080"],
    ["example.com", "https://example.com"],
    ["example.com:443", "https://example.com"],
  ])("on %s %s is the API's own", async (own, origin) => {
    expect((await call("DELETE", "/sandboxes/nothing", { host: own, origin })).status).toBe(404)
  })
})

test("creating and running are limited per user and apart, and the refusal says when to come back", async () => {
  const statuses = async (count: number, path: string, body: string, key = stage.key) => {
    const all = await Promise.all(
      Array.from({ length: count }, () => call("POST", path, { authorization: `Bearer ${key}` }, body)),
    )
    for (const answer of all.filter(({ status }) => status === 429)) {
      expect(Number(answer.headers.get("retry-after"))).toBeGreaterThan(0)
      expect(ErrorBody.parse(await answer.json())).toMatchObject({ code: "limit_exceeded", retryable: true })
    }
    return all.map(({ status }) => status).sort()
  }
  expect(await statuses(4, "/sandboxes", "{}")).toEqual([201, 201, 429, 429])
  expect(await statuses(5, "/sandboxes/dev/exec", '{"cmd":["true"]}')).toEqual([200, 200, 200, 429, 429])
  expect((await call("GET", "/sandboxes", {})).status).toBe(200)
  const { key } = await stage.core.store.users.create({ name: "bob" })
  expect(await statuses(1, "/sandboxes", "{}", key)).toEqual([201])
})
