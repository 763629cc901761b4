/**
 * The control plane that e2b's SDKs speak, as a function from request to response: a second surface over `core`, with
 * the same keys, rights, rates and log. It is told from the API by the header that has the key.
 */

import { parseInput } from "@bhatti/contract/wording"
import { Hono } from "hono"
import type { Core } from "../core/core.ts"
import { checkAccess } from "../gate/access.ts"
import { holderOfKey } from "../gate/authenticate.ts"
import { checkBrowserSafety } from "../gate/browser-safety.ts"
import { readBody } from "../gate/read-body.ts"
import { logRequest, requestIdOf } from "../gate/request.ts"
import type { RequestKind, RequestRates } from "../gate/request-rates.ts"
import { unlessRevoked } from "../gate/revocation.ts"
import { parseStrictJson } from "../lib/strict-json.ts"
import { Envd } from "./envd.ts"
import { isAgentLabel } from "./envd-caller.ts"
import { errorResponse, noSuchEndpoint } from "./errors.ts"
import { keyOf } from "./ids.ts"
import { type Route, routes } from "./routes.ts"
import type { EnvdAnswer } from "./streamed.ts"

const keyHeader = "x-api-key"

type Environment = {
  Bindings: { body: AsyncIterable<Uint8Array> }
  Variables: { requestId: string; user: string | undefined }
}

export type { EnvdAnswer }

export type E2b = {
  /** Names below the domain that the SDKs use. */
  readonly names: { isApiLabel: (label: string) => boolean; hasPortNames: true }
  /** Returns whether the request is for this surface. */
  claims(request: Request): boolean
  answer(request: Request, body: AsyncIterable<Uint8Array>): Promise<EnvdAnswer>
}

export function createE2b(
  core: Core,
  settings: { apiHosts: readonly string[]; allowedOrigins?: readonly string[]; rates: RequestRates },
): E2b {
  const app = new Hono<Environment>()
  app.use(async (c, next) => {
    const startedAt = performance.now()
    const requestId = requestIdOf(c.req.raw.headers)
    c.set("requestId", requestId)
    checkBrowserSafety(c.req.raw, settings)
    await next()
    c.res.headers.set("x-request-id", requestId)
    const { method, path } = c.req
    const about = { id: requestId, user: c.get("user"), method, path: `e2b ${path}`, startedAt }
    logRequest(core.log, { ...about, status: c.res.status })
  })
  const failed = (error: unknown, c: { get(name: "requestId" | "user"): string | undefined }) =>
    errorResponse(error, { requestId: c.get("requestId") ?? "", user: c.get("user"), log: core.log })
  app.onError(failed)
  app.notFound((c) => failed(noSuchEndpoint(c.req.method, c.req.path), c))

  for (const route of routes) {
    app.on(route.method, [...route.paths], async (c) => {
      const holder = await holderOfKey(core, keyOf(c.req.raw.headers.get(keyHeader)), {
        hint: "send the key in the header X-API-KEY",
      })
      c.set("user", holder.account.name)
      checkAccess(holder.account, route.access)
      settings.rates.count(kindOf(route), holder.account)
      const text = await readBody(c.req.raw, c.env.body)
      const account = await holder.confirm()
      const body = parseInput(route.body, text.trim() === "" ? {} : parseStrictJson(text))
      const query = parseInput(route.query, c.req.query())
      const stop = new AbortController()
      const signal = AbortSignal.any([c.req.raw.signal, stop.signal])
      const work = route.answer({
        core,
        account,
        tokenFor: holder.tokenFor,
        params: c.req.param(),
        body,
        query,
        signal,
      })
      return await unlessRevoked(holder.revoked, work, () => stop.abort())
    })
  }
  const envd = new Envd(core, settings)
  return {
    names: { isApiLabel: isAgentLabel, hasPortNames: true },
    claims: (request) => request.headers.has(keyHeader) || envd.claims(request),
    answer: async (request, body) =>
      envd.claims(request)
        ? await envd.answer(request, body)
        : { response: await app.fetch(request, { body }), bytes: undefined },
  }
}

function kindOf({ access, method }: Route): RequestKind {
  const isCreate = method === "POST" && access !== "any key" && access.can === "create"
  return isCreate ? "create" : "other"
}
