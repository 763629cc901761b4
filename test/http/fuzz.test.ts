/** Whatever is sent to the endpoints of the contract, the answers are what /openapi.json says, and never a bug's. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { api } from "@bhatti/contract/api"
import type { Endpoint } from "@bhatti/contract/endpoint"
import { Sandbox } from "@bhatti/contract/sandbox"
import { Validator } from "@seriousme/openapi-schema-validator"
import fc from "fast-check"
import { z } from "zod"
import { almostFitting, fitting, type JsonSchema } from "../support/schema-arbitrary.ts"
import { type Answer, AnswerCheck, answerTo, anyRequest, type FuzzRequest } from "./contract-fuzz.ts"
import { type Served, serveOnFakeHost } from "./served.ts"

const sandboxesMax = 5
/** On a busy host there are fewer runs instead of a late end. */
const patienceMs = 15_000
let served: Served
let check: AnswerCheck
let key: string
const bugs: unknown[] = []

beforeAll(async () => {
  served = await serveOnFakeHost({
    log: { info() {}, warn() {}, error: (fields, message) => bugs.push([message, fields]) },
    isRateLimited: false,
  })
  key = (await served.core.store.users.create({ name: "alice", maxSandboxes: sandboxesMax })).key
  check = new AnswerCheck(await (await fetch(`${served.url}/openapi.json`)).json())
})
afterAll(() => served[Symbol.asyncDispose]())

function send(request: FuzzRequest): Promise<Answer | undefined> {
  return answerTo({ url: served.url, key }, request)
}

/** A sandbox that has one of everything the samples ask for. */
async function prepareDev(): Promise<void> {
  const sandboxes = await list()
  const isFull = sandboxes.length >= sandboxesMax
  for (const { id, name } of sandboxes) if (name !== "dev" && isFull) await ask("DELETE", `/sandboxes/${id}`)
  const made = await ask("POST", "/sandboxes", '{"name":"dev","init":"sleep"}')
  if (made?.status === 409) return
  expect(made?.status).toBe(201)
  await ask("PUT", "/sandboxes/dev/files?path=/x", "text")
  await ask("POST", "/sandboxes/dev/publish", '{"port":3000}')
}

function ask(method: string, path: string, body?: string): Promise<Answer | undefined> {
  return send({ name: "", method, path, body, headers: {} })
}

async function list(): Promise<Sandbox[]> {
  return z
    .array(Sandbox)
    .parse(
      await (await fetch(`${served.url}/sandboxes`, { headers: { authorization: `Bearer ${key}` } })).json(),
    )
}

test("the description is valid OpenAPI 3.1", async () => {
  const document = (await (await fetch(`${served.url}/openapi.json`)).json()) as Record<string, unknown>
  const validator = new Validator()
  expect(await validator.validate(document)).toEqual({ valid: true })
  expect(validator.version).toBe("3.1")
})

test("every endpoint gives described answers to any input", async () => {
  await fc.assert(
    fc.asyncProperty(anyRequest({ sandboxes: ["dev"] }), async (request) => {
      await prepareDev()
      expect(check.wrong(request, await send(request))).toBeUndefined()
      expect(bugs).toEqual([])
    }),
    { numRuns: 1200, interruptAfterTimeLimit: patienceMs },
  )
}, 120_000)

test("sequences of requests keep limits and names, and leave nothing behind", async () => {
  const sequence = fc.array(anyRequest({ sandboxes: ["dev", "box", "x"] }), {
    minLength: 5,
    maxLength: 40,
  })
  await fc.assert(
    fc.asyncProperty(sequence, async (requests) => {
      // Pairs go at the same time.
      for (let at = 0; at < requests.length; at += 2) {
        const pair = requests.slice(at, at + 2)
        const answers = await Promise.all(pair.map(send))
        for (const [index, request] of pair.entries())
          expect(check.wrong(request, answers[index])).toBeUndefined()
      }
      const sandboxes = await list()
      expect(sandboxes.length).toBeLessThanOrEqual(sandboxesMax)
      expect(new Set(sandboxes.map(({ name }) => name)).size).toBe(sandboxes.length)
      for (const { id } of sandboxes) await ask("DELETE", `/sandboxes/${id}`)
      expect(served.host.running.size).toBe(0)
      expect(served.host.directories.size).toBe(0)
      expect(served.host.ongoing).toEqual({ commands: 0, uploads: 0, downloads: 0 })
      expect(bugs).toEqual([])
    }),
    { numRuns: 60, interruptAfterTimeLimit: patienceMs },
  )
}, 120_000)

const sockets = (Object.entries(api) as [string, Endpoint][]).filter(([, { socket }]) => socket !== undefined)

test.each(sockets)(
  "the WebSocket %s tells only what is described, whatever it is sent",
  async (_name, endpoint) => {
    const { socket } = endpoint
    if (socket === undefined) throw new Error("it is no socket")
    await prepareDev()
    const schemas = [socket.start, socket.client]
      .filter((type) => !(type instanceof z.ZodNever))
      .map((type) => z.toJSONSchema(type, { io: "input" }) as JsonSchema)
    const message = fc.oneof(
      ...schemas.flatMap((schema) =>
        [fitting(schema), almostFitting(schema)].map((one) => one.map((value) => JSON.stringify(value))),
      ),
      fc.constantFrom(
        '{"cmd":["sleep"]}',
        '{"cmd":["cat"],"stdin":true}',
        '{"cmd":["flood","300000"],"window":65536}',
      ),
      fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
      fc.uint8Array({ maxLength: 3000 }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(message, { maxLength: 12 }), async (messages) => {
        const path = endpoint.path.replace(":id", "dev")
        const opened = new WebSocket(served.url.replace("http", "ws") + path, {
          headers: { authorization: `Bearer ${key}` },
        } as never)
        opened.binaryType = "arraybuffer"
        const texts: string[] = []
        opened.onmessage = ({ data }) => {
          if (typeof data === "string") texts.push(data)
        }
        const closed = new Promise((resolve) => {
          opened.onclose = resolve
        })
        await new Promise((resolve, reject) => {
          opened.onopen = resolve
          opened.onerror = reject
        })
        for (const one of messages) opened.send(one as string | Uint8Array<ArrayBuffer>)
        opened.close()
        await closed
        for (const text of texts) {
          const told = socket.server.parse(JSON.parse(text))
          expect((told as { code?: string }).code).not.toBe("internal")
        }
        expect(bugs).toEqual([])
      }),
      { numRuns: 300, interruptAfterTimeLimit: patienceMs },
    )
  },
  120_000,
)
