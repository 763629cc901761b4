/**
 * The client without a daemon: what it sends, how answers and failures come back. Streams: test/cli/exec.test.ts and
 * exec-stream.test.ts.
 */

import { expect, test } from "bun:test"
import { api } from "@bhatti/contract/api"
import { AppError } from "@bhatti/contract/errors"
import { connect } from "./client.ts"
import { fillRoute, routes } from "./routes.ts"

function answering(answer: () => Response) {
  const requests: { url: string; init: RequestInit }[] = []
  const client = connect({
    url: "http://daemon:8080/",
    token: "bht_key",
    fetch: async (url, init) => {
      requests.push({ url, init })
      return answer()
    },
  })
  return { client, requests }
}

async function failureOf(calling: Promise<unknown>): Promise<AppError> {
  const error = await calling.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AppError)) throw new Error("no AppError was thrown", { cause: error })
  return error
}

test("the route table is the contract's", () => {
  const expected = Object.entries(api).map(([name, { method, path }]) => [name, `${method} ${path}`])
  expect(Object.entries(routes)).toEqual(expected as typeof expected & [keyof typeof routes, never][])
})

test("parameters are one path segment, whatever they hold", () => {
  for (const [id, segment] of [
    ["dev", "dev"],
    ["a/b", "a%2Fb"],
    ["..", "%2E%2E"],
    [".", "%2E"],
    ["a?b#c", "a%3Fb%23c"],
  ] as const)
    expect(fillRoute("getSandbox", { id }).path).toBe(`/sandboxes/${segment}`)
})

test("sends method, path, key and body", async () => {
  const { client, requests } = answering(() => Response.json({ name: "dev" }, { status: 201 }))
  await client.createSandbox({ body: { name: "dev", cpus: 2 } })
  expect(requests).toHaveLength(1)
  const [{ url, init } = { url: "", init: {} }] = requests
  expect(url).toBe("http://daemon:8080/sandboxes")
  expect(init).toMatchObject({
    method: "POST",
    headers: { authorization: "Bearer bht_key", "content-type": "application/json" },
    body: '{"name":"dev","cpus":2}',
  })
})

test("an error keeps its code, message, hint and whether to retry", async () => {
  const { client } = answering(() =>
    Response.json(
      { error: "m", code: "conflict", message: "m", hint: "bhatti rm x", retryable: true, request_id: "r" },
      { status: 409 },
    ),
  )
  const error = await failureOf(client.getSandbox({ params: { id: "x" } }))
  expect(error).toMatchObject({ code: "conflict", message: "m", hint: "bhatti rm x", retryable: true })
})

test("an internal error names the request to look for in the log", async () => {
  const body = {
    error: "internal error",
    code: "internal",
    message: "internal error",
    hint: null,
    request_id: "req_7",
  }
  const { client } = answering(() => Response.json(body, { status: 500 }))
  expect((await failureOf(client.listSandboxes())).hint).toContain("req_7")
})

test("an older error body and no body at all still become an AppError", async () => {
  const older = answering(() => Response.json({ error: "sandbox not found" }, { status: 404 }))
  expect(await failureOf(older.client.listSandboxes())).toMatchObject({
    code: "not_found",
    message: "sandbox not found",
  })
  for (const [status, code] of [
    [401, "unauthenticated"],
    [413, "too_large"],
    [418, "invalid"],
    [429, "limit_exceeded"],
    [502, "unavailable"],
    [500, "internal"],
  ] as const) {
    const { client } = answering(() => new Response("<html>", { status }))
    expect((await failureOf(client.listSandboxes())).code).toBe(code)
  }
})

test("no connection is unavailable, and retryable", async () => {
  const client = connect({ url: "http://127.0.0.1:9" })
  expect(await failureOf(client.health())).toMatchObject({
    code: "unavailable",
    retryable: true,
    message: "no bhatti daemon answers at http://127.0.0.1:9",
  })
})

test("an aborted call throws the caller's reason", async () => {
  const reason = new Error("enough")
  const client = connect({ url: "http://127.0.0.1:9" })
  const calling = client.health({ signal: AbortSignal.abort(reason) })
  expect(await calling.catch((error: unknown) => error)).toBe(reason)
})

test("wrong arguments do not compile", () => {
  const { client } = answering(() => Response.json({}))
  const neverCalled = () => {
    // @ts-expect-error a parameter is missing
    void client.getSandbox({ params: {} })
    // @ts-expect-error there is no such parameter
    void client.getSandbox({ params: { name: "dev" } })
    // @ts-expect-error input is missing
    void client.getSandbox()
    // @ts-expect-error a body field has the wrong type
    void client.createSandbox({ body: { cpus: "2" } })
    // @ts-expect-error there is no such body field
    void client.createSandbox({ body: { cpu: 2 } })
    // @ts-expect-error sockets are not calls
    void client.execSocket({ params: { id: "dev" } })
  }
  expect(neverCalled).toBeFunction()
})

test("an endpoint that an older daemon lacks is told from a thing that is not there", async () => {
  const missing = { code: "not_found", message: "no such endpoint: GET /sandboxes/dev/processes" }
  const asked = (paths: object) => {
    return connect({
      url: "http://daemon",
      fetch: async (url) =>
        url.endsWith("/openapi.json") ? Response.json({ paths }) : Response.json(missing, { status: 404 }),
    }).listProcesses({ params: { id: "dev" } })
  }
  expect(await failureOf(asked({ "/sandboxes/{id}/sessions": { get: {} } }))).toMatchObject({
    code: "unavailable",
    message: "the daemon at http://daemon does not know GET /sandboxes/:id/processes",
    reason: "unknown_endpoint",
    retryable: false,
    hint: expect.stringContaining("older than this program"),
  })
  expect(await failureOf(asked({ "/sandboxes/{id}/processes": { get: {} } }))).toMatchObject(missing)
})
