/** A web page cannot use the API through its visitor's browser, and nobody can ask without end. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { RateLimits } from "@bhatti/contract/config"
import { ErrorBody } from "@bhatti/contract/system"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { createApp } from "../../src/http/app.ts"
import { get, openStage, type Stage, sendRaw } from "../proxy/stage.ts"
import { sampleRequests } from "./samples.ts"

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

describe("every WebSocket of the contract", () => {
  const upgrade = [
    "Connection: upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  ]
  const status = async (path: string, host: string, headers: string[]) => {
    const answer = await sendRaw(stage.port, get(path, { host, headers: [...upgrade, ...headers] }), {
      until: /^HTTP\/1\.1 \d{3} /,
    })
    return Number(answer.split(" ")[1])
  }

  test.each(sampleRequests("dev").flatMap(({ name, path, messages }) => (messages ? [[name, path]] : [])))(
    "%s opens for its own page or no page, with the key in its header, at the API's own name",
    async (name, path) => {
      // This test has its own user, since the stage's user may open few.
      const { key: word } = await stage.core.store.users.create({ name })
      const key = `Authorization: Bearer ${word}`
      const query = `${path.includes("?") ? "&" : "?"}token=${word}&access_token=${word}`
      expect(await status(path, "localhost:8080", [key])).toBe(101)
      expect(await status(path, "localhost:8080", [key, "Origin: http://localhost:8080"])).toBe(101)
      expect(await status(path, "localhost:8080", [key, "Origin: http://evil.test"])).toBe(403)
      expect(await status(path, "localhost:8080", [key, "Origin: null"])).toBe(403)
      expect(await status(path, "evil.test", [key])).not.toBe(101)
      expect(await status(path, "localhost:8080", [])).toBe(401)
      expect(await status(path + query, "localhost:8080", [])).toBe(401)
      expect(await status(path, "localhost:8080", [`Cookie: token=${word}`])).toBe(401)
      expect(await status(path, "localhost:8080", [`Sec-WebSocket-Protocol: bearer, ${word}`])).toBe(401)
    },
  )
})

test("no spelling of a path leads around the key", async () => {
  const spellings = [
    ...[
      "//sandboxes",
      "/./sandboxes",
      "/health/../sandboxes",
      "/health/..%2fsandboxes",
      "/health%2f..%2fsandboxes",
    ],
    ...[
      "/%2e%2e/sandboxes",
      "/SANDBOXES",
      "/Sandboxes",
      "/sandboxes/",
      "/sandboxes.",
      "/sandboxes%00",
      "/sandboxes;x",
    ],
    ...[
      "/%73andboxes",
      "/sandboxes%20",
      "/sandboxes/dev/",
      "/sandboxes/dev%2fexec",
      "/health/",
      "/health%2f",
      "/HEALTH",
    ],
    ...[
      "/health?/sandboxes",
      "/openapi.json/../sandboxes",
      "/openapi.json%2f..%2fsandboxes",
      "/sandboxes#/health",
    ],
    ...["\\sandboxes", "/\\sandboxes", "http://localhost/sandboxes", "http://localhost//sandboxes", "*"],
  ]
  for (const path of spellings) {
    const headers = ["Connection: close"]
    const answer = await sendRaw(stage.port, get(path, { host: "localhost", headers }))
    const isHealth = answer.includes('{"status":"ok"')
    expect([path, isHealth || /^HTTP\/1\.1 (400|401|404) /.test(answer)]).toEqual([path, true])
    expect([path, answer.includes("created_at")]).toEqual([path, false])
  }
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

test("two surfaces with the same rates share each user's budget", async () => {
  const { core } = stage
  const rates = new RequestRates(RateLimits.parse({ other: { burst: 1, per_minute: 1 } }))
  const about = { version: "0.0.0", accelerator: "tcg" as const, acceleratorReason: "test", warnings: [] }
  const surfaces = [1, 2].map(() => createApp(core, about, { apiHosts: [], rates }))
  const { key } = await core.store.users.create({ name: "carol" })
  const headers = { authorization: `Bearer ${key}`, host: "localhost" }
  const statuses: number[] = []
  for (const surface of surfaces) {
    const { response } = await surface(new Request("http://localhost/sandboxes", { headers }), nothing())
    statuses.push(response.status)
  }
  expect(statuses).toEqual([200, 429])
})

async function* nothing(): AsyncGenerator<Uint8Array> {}
