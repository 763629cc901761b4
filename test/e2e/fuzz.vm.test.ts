/** The contract's own inputs against a running daemon with real machines: described answers, no bug, bounded memory. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import fc from "fast-check"
import { type Answer, AnswerCheck, answerTo, anyRequest, type FuzzRequest } from "../http/contract-fuzz.ts"
import { type Installation, install } from "../support/installation.ts"

const rates = ["create", "exec", "other"].map((kind) => `  ${kind}: { burst: 100000, per_minute: 1000000 }`)

let own: Installation
beforeAll(async () => {
  own = await install({ config: ["rate_limits:", ...rates, ""].join("\n") })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 120_000)

function send(request: FuzzRequest): Promise<Answer | undefined> {
  return answerTo({ url: own.url, key: own.key }, request)
}

function ask(method: string, path: string, body?: string): Promise<Answer | undefined> {
  return send({ name: "", method, path, body, headers: {} })
}

/** A sandbox that has one of everything the samples ask for; one more may be there. */
async function prepareDev(): Promise<void> {
  const sandboxes = JSON.parse((await ask("GET", "/sandboxes"))?.text ?? "") as { id: string; name: string }[]
  for (const { id, name } of sandboxes)
    if (name !== "dev" && sandboxes.length > 2) await ask("DELETE", `/sandboxes/${id}`)
  if (sandboxes.some(({ name }) => name === "dev")) return
  const made = await ask("POST", "/sandboxes", '{"name":"dev","init":"sleep 1000"}')
  expect(made?.status).toBe(201)
  await ask("PUT", "/sandboxes/dev/files?path=/x", "text")
  await ask("POST", "/sandboxes/dev/publish", '{"port":3000}')
}

function daemonMib(): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${own.daemonPid()}/status`, "utf8"))?.[1]) / 1024
}

test("any input to any endpoint gets a described answer, and the daemon stays well", async () => {
  const check = new AnswerCheck(await (await fetch(`${own.url}/openapi.json`)).json())
  await prepareDev()
  const before = daemonMib()
  await fc.assert(
    fc.asyncProperty(anyRequest({ sandboxes: ["dev", "dev", "box"] }), async (request) => {
      await prepareDev()
      expect(check.wrong(request, await send(request))).toBeUndefined()
    }),
    { numRuns: 400, endOnFailure: true, interruptAfterTimeLimit: 180_000 },
  )
  expect(own.daemonLog()).not.toContain("internal error")
  expect(own.daemonLog()).not.toContain("unhandled rejection")
  expect(daemonMib() - before).toBeLessThan(64)
  expect((await own.bhatti(["exec", "dev", "--", "echo", "well"])).stdout).toBe("well\n")
}, 900_000)
