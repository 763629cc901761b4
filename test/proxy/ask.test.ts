/** Answers to a proxy in front about names it may get certificates for. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { get, openStage, type Stage, sendRaw } from "./stage.ts"

let stage: Stage

beforeAll(async () => {
  stage = await openStage({
    domain: "example.com",
    apiHosts: ["api.example.com"],
    rateLimits: { certificate_ask: { burst: 20, per_minute: 1 } },
  })
  await stage.publish(1)
})
afterAll(() => stage[Symbol.asyncDispose]())

const ask = async (query: string) => (await fetch(`http://127.0.0.1:${stage.port}/caddy/ask${query}`)).status

test("names that are served get a yes, all others a no", async () => {
  for (const name of ["app.example.com", "APP.example.com", "example.com", "api.example.com"])
    expect([name, await ask(`?domain=${name}`)]).toEqual([name, 200])
  for (const name of ["other.example.com", "a.app.example.com", "evil.test", "localhost", "127.0.0.1", ""])
    expect([name, await ask(`?domain=${name}`)]).toEqual([name, 404])
  expect(await ask("")).toBe(404)
})

test("an alias's own address has no such path, and questions have a limit", async () => {
  const answer = await sendRaw(
    stage.port,
    get("/caddy/ask?domain=app.example.com", { host: "app.example.com", headers: ["Connection: close"] }),
  )
  expect(answer).toStartWith("HTTP/1.1 502 ")
  const statuses = await Promise.all(Array.from({ length: 20 }, () => ask("?domain=example.com")))
  expect(statuses).toContain(429)
})
