/**
 * The HTTP interface as a function from request to response: routes from the contract, authentication, errors, the log.
 */

import { timingSafeEqual } from "node:crypto"
import { api } from "@bhatti/contract/api"
import type { RateLimits } from "@bhatti/contract/config"
import type { Endpoint } from "@bhatti/contract/endpoint"
import { AppError } from "@bhatti/contract/errors"
import { ticketProtocol } from "@bhatti/contract/limits"
import { openApi } from "@bhatti/contract/openapi"
import { parseInput } from "@bhatti/contract/wording"
import { Hono } from "hono"
import { z } from "zod"
import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import { checkAccess } from "../gate/access.ts"
import { holderOfKey, holderOfTicket } from "../gate/authenticate.ts"
import { checkBrowserSafety } from "../gate/browser-safety.ts"
import { readBody } from "../gate/read-body.ts"
import { logRequest, requestIdOf } from "../gate/request.ts"
import type { RequestRates } from "../gate/request-rates.ts"
import { withValidKey } from "../gate/revocation.ts"
import type { Account } from "../store/users.ts"
import type { RequestContext, SocketState } from "./context.ts"
import { allowOrigins } from "./cors.ts"
import { endpointAccess } from "./endpoint-access.ts"
import { errorResponse } from "./errors.ts"
import { parseBody } from "./input.ts"
import { type Downloads, serveDownloads } from "./install.ts"
import { requestKinds } from "./request-kinds.ts"
import type { About } from "./routes/system.ts"
import { handlers } from "./routes.ts"
import { StreamedAnswer } from "./streamed-answer.ts"

type Variables = { requestId: string; account: Account | undefined }
type Bindings = {
  body: AsyncIterable<Uint8Array>
  upgrade: Upgrade
  /** Set if the body is streamed; the response then has no body. */
  streamed?: StreamedAnswer
}
/** Returns false if the request is not a WebSocket upgrade. */
type Upgrade = (state: SocketState) => boolean
type Environment = { Bindings: Bindings; Variables: Variables }

/** Handlers share this type here; `Handlers` has checked each against its endpoint. */
type AnyHandler = (context: RequestContext, input: { body: unknown; query: unknown }) => Promise<unknown>

export type AppSettings = {
  /** Host names of the API besides addresses and localhost. */
  apiHosts: readonly string[]
  /** Origins of other sites' pages that may use the API, with a key. */
  allowedOrigins?: readonly string[]
  /** Shared with other surfaces, so that each user has one budget. */
  rates: RequestRates
  /** Proxies whose forwarded client address is trusted, as in the front. */
  trustedProxies?: readonly string[]
  /** Token for reading the metrics; without it they are disabled. */
  metricsToken?: string | undefined
  /** Files that other machines may install from here; without it there are none. */
  install?: { downloads: Downloads; rate: RateLimits["install"] }
}

/** A streamed answer's body is in `bytes`. */
export type App = (
  request: Request,
  body: AsyncIterable<Uint8Array>,
  upgrade?: Upgrade,
) => Promise<{ response: Response; bytes: StreamedAnswer | undefined }>

export function createApp(core: Core, about: About, settings: AppSettings): App {
  const app = new Hono<Environment>()

  app.use(async (c, next) => {
    const startedAt = performance.now()
    const requestId = requestIdOf(c.req.raw.headers)
    c.set("requestId", requestId)
    checkBrowserSafety(c.req.raw, settings)
    await next()
    c.res.headers.set("x-request-id", requestId)
    c.res.headers.set("x-bhatti-version", about.version)
    const { method, path } = c.req
    const user = c.get("account")?.name
    logRequest(core.log, { id: requestId, user, method, path, status: c.res.status, startedAt })
  })

  if (settings.allowedOrigins?.length) app.use(allowOrigins(settings.allowedOrigins))

  app.onError((error, c) =>
    errorResponse(error, { requestId: c.get("requestId"), user: c.get("account")?.name, log: core.log }),
  )
  app.notFound((c) =>
    errorResponse(
      new AppError("not_found", `no such endpoint: ${c.req.method} ${c.req.path}`, {
        hint: "GET /openapi.json lists all endpoints",
      }),
      {
        requestId: c.get("requestId"),
        log: core.log,
      },
    ),
  )

  app.get("/openapi.json", (c) => c.json(openApi({ version: about.version })))

  if (settings.metricsToken !== undefined) {
    const token = settings.metricsToken
    app.get("/metrics", async (c) => {
      checkToken(c.req.header("authorization"), token)
      const { text, contentType } = await core.metrics.read()
      return c.body(text, 200, { "content-type": contentType })
    })
  }

  if (settings.install) {
    const { apiHosts, trustedProxies = [], install } = settings
    const { publicAddress } = core.settings
    serveDownloads(app, install.downloads, { rate: install.rate, trustedProxies, apiHosts, publicAddress })
  }

  const table = handlers(about)
  for (const [name, definition] of Object.entries(api) as [keyof typeof api, Endpoint][]) {
    const handle = table[name] as AnyHandler
    app.on(definition.method, definition.path, async (c) => {
      const holder = definition.isPublic ? undefined : await authenticate(core, c.req.raw.headers, definition)
      c.set("account", holder?.account)
      if (holder) checkAccess(holder.account, endpointAccess[name])
      if (holder) settings.rates.count(requestKinds[name] ?? "other", holder.account)
      const text = definition.isPublic || definition.bodyBytes ? "" : await readBody(c.req.raw, c.env.body)
      // The body may arrive minutes after its head. A streamed body is checked piece by piece.
      const account = definition.bodyBytes ? holder?.account : await holder?.confirm()
      const { body: shape, emptyFields } = definition
      const reply = await handle(
        {
          core,
          account: account as Account,
          revoked: holder?.revoked as AbortSignal,
          requestId: c.get("requestId"),
          request: c.req.raw,
          body: holder ? withValidKey(c.env.body, holder) : c.env.body,
          issueTicket: holder?.issueTicket as KeyHolder["issueTicket"],
          upgrade: (session) => holder !== undefined && c.env.upgrade({ session, holder }),
          params: c.req.param(),
        },
        {
          body: shape && parseBody(c.req.raw, text, { shape, emptyFields }),
          query: parseInput(definition.query ?? NoQuery, queryOf(c.req.queries())),
        },
      )
      if (reply instanceof Response) return reply
      if (reply instanceof StreamedAnswer) {
        c.env.streamed = reply
        return new Response(null, { status: reply.status, headers: reply.headers })
      }
      return Response.json(reply, { status: definition.status })
    })
  }
  return async (request, body, upgrade = () => false) => {
    const bindings: Bindings = { body, upgrade }
    const response = await app.fetch(request, bindings)
    return { response, bytes: bindings.streamed }
  }
}

/** Endpoints without query parameters reject any that are sent. */
const NoQuery = z.strictObject({})

/** A repeated parameter keeps all its values, which most shapes refuse. */
function queryOf(queries: Record<string, string[]>): Record<string, string | string[]> {
  const entries = Object.entries(queries)
  return Object.fromEntries(
    entries.map(([name, values]) => [name, values.length > 1 ? values : (values[0] ?? "")]),
  )
}

async function authenticate(core: Core, headers: Headers, { socket }: Endpoint): Promise<KeyHolder> {
  const header = headers.get("authorization")
  const ticket = socket && header === null ? ticketIn(headers) : undefined
  if (ticket !== undefined) return holderOfTicket(core, ticket, { hint: ticketHint })
  const key = /^Bearer (\S+)$/i.exec(header ?? "")?.[1]
  return holderOfKey(core, key, { hint: "send the key in the header Authorization: Bearer KEY" })
}

const ticketHint = "a ticket opens one WebSocket; get another with POST /ws-tickets"

function ticketIn(headers: Headers): string | undefined {
  const offered = headers.get("sec-websocket-protocol")?.split(/[\t ]*,[\t ]*/) ?? []
  return offered.find((name) => name.startsWith(ticketProtocol))?.slice(ticketProtocol.length)
}

/** Compares digests, so that the timing reveals nothing about the token. */
function checkToken(header: string | undefined, token: string): void {
  const digest = (text: string) => new Bun.CryptoHasher("sha256").update(text).digest()
  if (timingSafeEqual(digest(header ?? ""), digest(`Bearer ${token}`))) return
  throw new AppError("unauthenticated", "the metrics token is not valid", {
    hint: "send Authorization: Bearer with metrics_token of config.yaml",
  })
}
