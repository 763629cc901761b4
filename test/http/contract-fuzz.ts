/**
 * Requests made from the contract, good, at the edge and bad, and the check that every answer is what /openapi.json
 * says. Nothing here knows an endpoint by name.
 */

import { api } from "@bhatti/contract/api"
import type { Endpoint } from "@bhatti/contract/endpoint"
import Ajv2020, { type ValidateFunction } from "ajv/dist/2020.js"
import addFormats from "ajv-formats"
import fc, { type Arbitrary } from "fast-check"
import { z } from "zod"
import { almostFitting, fitting, type JsonSchema } from "../support/schema-arbitrary.ts"
import { sampleRequests } from "./samples.ts"

export type FuzzRequest = {
  name: string
  method: string
  path: string
  body: string | undefined
  headers: Record<string, string>
}

type Options = {
  /** Names of sandboxes that may be there; others are made up. */
  sandboxes: string[]
  /** Endpoints to leave out. */
  except?: string[]
}

const endpoints = Object.entries(api) as [string, Endpoint][]

export function anyRequest({ sandboxes, except = [] }: Options): Arbitrary<FuzzRequest> {
  return fc.oneof(
    ...endpoints
      .filter(([name]) => !except.includes(name))
      .map(([name, endpoint]) =>
        fc
          .record({
            path: pathOf(endpoint, sandboxes),
            query: queryOf(endpoint),
            body: bodyOf(name, endpoint, sandboxes),
            headers: headersOf(endpoint),
          })
          .map(({ path, query, body, headers }) => ({
            name,
            method: endpoint.method,
            path: path + query,
            body,
            headers,
          })),
      ),
  )
}

function schemaOf(type: z.ZodType): JsonSchema {
  return z.toJSONSchema(type, { io: "input" }) as JsonSchema
}

function pathOf({ path }: Endpoint, sandboxes: string[]): Arbitrary<string> {
  const madeUp = fc.oneof(
    fc.string({ minLength: 1, maxLength: 80, unit: "binary" }),
    fc.constantFrom(
      "\0",
      "%2e%2e",
      "a/b",
      "..%2f",
      "sb_0000000000000000",
      "0",
      "-1",
      "65536",
      "ü",
      "x".repeat(3000),
    ),
  )
  // The others are those of the samples.
  const known: Record<string, string[]> = {
    ":id": sandboxes,
    ":session": ["s1"],
    ":watch": ["w1"],
    ":process": ["s1", "p1"],
    ":service": ["db"],
    ":port": ["3000"],
    ":host": ["registry.example"],
    ":name": ["A"],
  }
  const value = (part: string) =>
    fc
      .oneof(
        { weight: 6, arbitrary: fc.constantFrom(...(known[part] ?? [])) },
        { weight: 1, arbitrary: madeUp },
      )
      // A URL cannot hold these as a name: they are gone before they are sent.
      .filter((text) => text !== "." && text !== ".." && text.isWellFormed())
  const parts = path
    .split("/")
    .map((part) => (part.startsWith(":") ? value(part).map(encodeURIComponent) : fc.constant(part)))
  return fc.tuple(...parts).map((texts) => texts.join("/"))
}

function queryOf({ query }: Endpoint): Arbitrary<string> {
  if (query === undefined) return fc.constant("")
  const schema = schemaOf(query)
  return fc.oneof(fitting(schema), almostFitting(schema)).map((value) => {
    const entries: [string, unknown][] = Object.entries(
      typeof value === "object" && value !== null ? value : {},
    )
    const search = new URLSearchParams(
      entries.flatMap(([name, given]) =>
        [given].flat().map((one): [string, string] => [name, String(one).slice(0, 5000)]),
      ),
    )
    return search.size === 0 ? "" : `?${search}`
  })
}

function bodyOf(
  name: string,
  { body, bodyBytes, method }: Endpoint,
  sandboxes: string[],
): Arbitrary<string | undefined> {
  if (method === "GET") return fc.constant(undefined)
  const words = fc.string({ unit: "binary", maxLength: 2000 }).filter((text) => text.isWellFormed())
  if (bodyBytes) return words
  if (body === undefined) return fc.option(words, { nil: undefined })
  const schema = schemaOf(body)
  const sample = sampleRequests("x").find((one) => one.name === name)?.body
  return fc.oneof(
    { weight: 3, arbitrary: fitting(schema).map((value) => JSON.stringify(value)) },
    { weight: 3, arbitrary: fc.tuple(fitting(schema), fc.constantFrom(...sandboxes)).map(withKnownName) },
    { weight: 3, arbitrary: fc.constant(sample) },
    { weight: 3, arbitrary: almostFitting(schema).map((value) => JSON.stringify(value)) },
    { weight: 1, arbitrary: words },
    { weight: 1, arbitrary: fc.jsonValue().map((value) => JSON.stringify(value)) },
  )
}

/** Names that are made up are never those of something that is there. */
function withKnownName([value, id]: [unknown, string]): string {
  return JSON.stringify(
    typeof value === "object" && value !== null && "name" in value ? { ...value, name: id } : value,
  )
}

function headersOf({ stream }: Endpoint): Arbitrary<Record<string, string>> {
  const accept = stream === undefined ? ["*/*", "application/json"] : ["*/*", stream.accept]
  return fc.record({
    accept: fc.constantFrom(...accept),
    "content-type": fc.oneof(
      { weight: 9, arbitrary: fc.constant("application/json") },
      { weight: 1, arbitrary: fc.constantFrom("text/plain", "application/octet-stream", "nonsense") },
    ),
  })
}

export type Answer = { status: number; headers: Headers; text: string }

/** How long a stream is listened to that may never end. */
const streamPatienceMs = 300

/** Returns undefined if a stream has been silent so far. */
export async function answerTo(
  daemon: { url: string; key: string },
  { name, method, path, body, headers }: FuzzRequest,
): Promise<Answer | undefined> {
  const endpoint: Endpoint | undefined = Object.entries(api).find(([known]) => known === name)?.[1]
  const leaving = new AbortController()
  const isStream = endpoint?.stream !== undefined && endpoint.method === "GET"
  const timer = isStream ? setTimeout(() => leaving.abort(), streamPatienceMs) : undefined
  let response: Response | undefined
  let text = ""
  try {
    response = await fetch(daemon.url + path, {
      method,
      headers: { ...headers, authorization: `Bearer ${daemon.key}` },
      signal: leaving.signal,
      ...(body !== undefined && { body }),
    })
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
  } catch (error) {
    if (!leaving.signal.aborted) throw error
    // A line that was on its way.
    text = text.slice(0, text.lastIndexOf("\n") + 1)
  } finally {
    clearTimeout(timer)
  }
  return response && { status: response.status, headers: response.headers, text }
}

type Response200 = { content?: Record<string, { schema: { $ref?: string } }> }
type OpenApi = {
  paths: Record<string, Record<string, { operationId: string; responses: Record<string, Response200> }>>
  components: { responses: { Error: Required<Response200> } }
}

/** Checks answers against a description that a daemon has given. */
export class AnswerCheck {
  readonly #ajv = new Ajv2020({ strict: false, allErrors: false })
  readonly #document: OpenApi

  constructor(document: unknown) {
    this.#document = document as OpenApi
    addFormats(this.#ajv)
    this.#ajv.addSchema(document as object, "openapi")
  }

  /** Returns the answer's fault, or undefined if it is as described. */
  wrong(request: FuzzRequest, answer: Answer | undefined): string | undefined {
    if (answer === undefined) return undefined
    const { operation, path } = this.#operation(request)
    const { status, headers, text } = answer
    const declared = operation.responses[String(status)]
    const pointer = declared
      ? `/paths/${pointerPart(path)}/${request.method.toLowerCase()}/responses/${status}`
      : "/components/responses/Error"
    const content = declared?.content ?? (declared ? {} : this.#document.components.responses.Error.content)
    const type = headers.get("content-type")?.split(";")[0] ?? ""
    if (Object.keys(content).length === 0)
      return text === "" ? undefined : `a body where none is described: ${text}`
    if (declared && content["application/octet-stream"] && type !== "application/json") return undefined
    if (content[type] === undefined) return `the content type "${type}" is not described`
    const validate = this.#validator(`${pointer}/content/${pointerPart(type)}/schema`)
    const lines = type === "application/x-ndjson" ? text.split("\n").filter((line) => line !== "") : [text]
    for (const line of lines) {
      const value: unknown = JSON.parse(line)
      if (!validate(value)) return `${this.#ajv.errorsText(validate.errors)}: ${line.slice(0, 500)}`
      const wrongStatus = declared ? undefined : wrongError(status, value as { code: string })
      if (wrongStatus) return `${wrongStatus}: ${line.slice(0, 500)}`
    }
    return undefined
  }

  #operation(request: FuzzRequest) {
    for (const [path, methods] of Object.entries(this.#document.paths)) {
      const operation = methods[request.method.toLowerCase()]
      if (operation?.operationId === request.name) return { operation, path }
    }
    throw new Error(`${request.name} is not described`)
  }

  #validator(pointer: string): ValidateFunction {
    const reference = `openapi#${pointer}`
    const known = this.#ajv.getSchema(reference)
    if (known) return known
    throw new Error(`there is no schema at ${reference}`)
  }
}

/** A caller's mistake, or something that is not there now; never a bug. */
function wrongError(status: number, value: { code: string }): string | undefined {
  if (status >= 400 && status < 500) return undefined
  return status === 503 && value.code === "unavailable" ? undefined : `status ${status}`
}

function pointerPart(part: string): string {
  return encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))
}
