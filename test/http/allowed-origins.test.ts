/** Web pages of other origins: none by default, and those that the operator has named, with a key of their own. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Config } from "@bhatti/contract/config"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

const page = "https://app.example.com"
let closed: HttpApp
let opened: HttpApp
beforeAll(async () => {
  closed = await openHttpApp()
  opened = await openHttpApp({ allowedOrigins: [page] })
})
afterAll(async () => {
  await closed[Symbol.asyncDispose]()
  await opened[Symbol.asyncDispose]()
})

function ask(app: HttpApp, method: string, headers: Record<string, string>, path = "/sandboxes") {
  return fetch(app.url + path, { method, headers })
}
const preflight = (origin: string) => ({
  origin,
  "access-control-request-method": "DELETE",
  "access-control-request-headers": "authorization,content-type",
})
const corsHeaders = (answer: Response) =>
  [...answer.headers.keys()].filter((name) => name.startsWith("access-control-allow-"))

test("by default no page of another origin may ask, and none is told anything", async () => {
  const authorization = `Bearer ${closed.key}`
  for (const answer of [
    await ask(closed, "OPTIONS", preflight(page)),
    await ask(closed, "GET", { origin: page, authorization }),
    await ask(closed, "DELETE", { origin: page, authorization }, "/sandboxes/x"),
  ])
    expect(corsHeaders(answer)).toEqual([])
  expect((await ask(closed, "DELETE", { origin: page, authorization }, "/sandboxes/x")).status).toBe(403)
})

test("an allowed origin's page may ask with a key, never with cookies, and reads answers and errors", async () => {
  const asked = await ask(opened, "OPTIONS", preflight(page))
  expect(asked.status).toBe(204)
  expect(asked.headers.get("access-control-allow-origin")).toBe(page)
  expect(asked.headers.get("access-control-allow-methods")).toContain("DELETE")
  expect(asked.headers.get("access-control-allow-headers")?.toLowerCase()).toContain("authorization")
  const authorization = `Bearer ${opened.key}`
  for (const [status, answer] of [
    [200, await ask(opened, "GET", { origin: page, authorization })],
    [404, await ask(opened, "DELETE", { origin: page, authorization }, "/sandboxes/x")],
    [401, await ask(opened, "GET", { origin: page, cookie: `token=${opened.key}` })],
  ] as const) {
    expect(answer.status).toBe(status)
    expect(answer.headers.get("access-control-allow-origin")).toBe(page)
    expect(answer.headers.get("access-control-expose-headers")).toContain("x-bhatti-truncated")
    expect(answer.headers.get("vary")).toContain("Origin")
    expect(answer.headers.get("access-control-allow-credentials")).toBeNull()
  }
})

test.each([
  "https://evil.test",
  "https://app.example.com.evil.test",
  "http://app.example.com",
  "https://app.example.com:8443",
  "https://APP.example.com",
  "null",
])("beside an allowed origin %s stays refused", async (origin) => {
  const authorization = `Bearer ${opened.key}`
  expect((await ask(opened, "DELETE", { origin, authorization }, "/sandboxes/x")).status).toBe(403)
  for (const answer of [
    await ask(opened, "OPTIONS", preflight(origin)),
    await ask(opened, "GET", { origin, authorization }),
  ]) {
    expect(answer.headers.get("access-control-allow-origin")).toBeNull()
    expect(answer.headers.get("vary")).toContain("Origin")
  }
})

test("an allowed origin opens no other host name of the API", async () => {
  const headers = { host: "evil.test", origin: page, authorization: `Bearer ${opened.key}` }
  expect((await ask(opened, "GET", headers)).status).toBe(403)
})

test("the setting takes origins alone", () => {
  const set = (origin: string) => Config.safeParse({ allowed_origins: [origin] }).success
  for (const origin of [page, "http://localhost:3000"]) expect([origin, set(origin)]).toEqual([origin, true])
  for (const origin of ["*", "null", "app.example.com", `${page}/`, `${page}/x`, "ftp://x", "https://A.test"])
    expect([origin, set(origin)]).toEqual([origin, false])
})
