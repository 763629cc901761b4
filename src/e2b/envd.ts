/**
 * The services of e2b's agent, which end in the daemon and not in the guest. Requests name their sandbox in headers;
 * the Connect library has the protocol, and what it calls works on `core`.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Permission } from "@bhatti/contract/permission"
import {
  Code,
  ConnectError,
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect"
import { encodeEnvelope, type UniversalHandler } from "@connectrpc/connect/protocol"
import {
  codeToHttpStatus,
  codeToString,
  endStreamFlag,
  endStreamToJson,
} from "@connectrpc/connect/protocol-connect"
import type { Core } from "../core/core.ts"
import { findSandbox } from "../core/find.ts"
import { checkAccess } from "../gate/access.ts"
import { holderOfKey } from "../gate/authenticate.ts"
import { checkBrowserSafety } from "../gate/browser-safety.ts"
import { toAppError } from "../gate/errors.ts"
import { logRequest, requestIdOf } from "../gate/request.ts"
import type { RequestRates } from "../gate/request-rates.ts"
import { onRevoked, withValidKey } from "../gate/revocation.ts"
import type { Account } from "../store/users.ts"
import type { Caller } from "./caller.ts"
import { keyOf, sandboxIdOf } from "./ids.ts"
import { processHandlers } from "./processes.ts"
import { processService } from "./protocol.ts"

const sandboxHeader = "e2b-sandbox-id"
const portHeader = "e2b-sandbox-port"
const tokenHeader = "x-access-token"
/** Where e2b's agent listens, as its SDKs name it. */
const agentPort = "49983"

/** A streamed body, as the front takes it. */
type Bytes = { pace: undefined; read(): Promise<Uint8Array | undefined>; close(): void }
export type EnvdAnswer = { response: Response; bytes: Bytes | undefined }

/** As much input as a WebSocket may have waiting. */
const messageBytesMax = 4 * limits.execStreamWindowBytes

const callerKey = createContextKey<Caller | undefined>(undefined)

const permissionOf: Record<string, Permission> = { "process.Process": "exec" }

type Settings = { apiHosts: readonly string[]; allowedOrigins?: readonly string[]; rates: RequestRates }

export class Envd {
  readonly #core: Core
  readonly #settings: Settings
  readonly #handlers: Map<string, UniversalHandler>

  constructor(core: Core, settings: Settings) {
    this.#core = core
    this.#settings = settings
    const router = createConnectRouter({
      ...{ grpc: false, grpcWeb: false, interceptors: [told(core)] },
      readMaxBytes: messageBytesMax,
    })
    const callerOf = ({ values }: HandlerContext) => {
      const caller = values.get(callerKey)
      if (!caller) throw new Error("a call has no caller")
      return caller
    }
    router.service(processService, processHandlers(callerOf) as never)
    this.#handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))
  }

  claims({ headers }: Request): boolean {
    return headers.has(sandboxHeader) && headers.get(portHeader) === agentPort
  }

  async answer(request: Request, body: AsyncIterable<Uint8Array>): Promise<EnvdAnswer> {
    const startedAt = performance.now()
    const id = requestIdOf(request.headers)
    const { pathname } = new URL(request.url)
    let user: string | undefined
    const answered = await this.#route(request, body, (name) => {
      user = name
    }).catch((error: unknown) => ({ response: refusal(request, error), bytes: undefined }))
    const { status } = answered.response
    logRequest(this.#core.log, {
      id,
      user,
      method: request.method,
      path: `e2b ${pathname}`,
      status,
      startedAt,
    })
    return answered
  }

  async #route(
    request: Request,
    body: AsyncIterable<Uint8Array>,
    onUser: (name: string) => void,
  ): Promise<EnvdAnswer> {
    checkBrowserSafety(request, this.#settings)
    const { headers, method, url } = request
    const { pathname } = new URL(url)
    const wireId = headers.get(sandboxHeader) ?? ""
    const holder = await holderOfKey(this.#core, keyOf(headers.get(tokenHeader)), {
      hint: "the SDK sends the access token of the sandbox in X-Access-Token",
    })
    onUser(holder.account.name)
    const found = await this.#find(holder.account, wireId)
    if (found instanceof Response) return { response: found, bytes: undefined }
    if (pathname === "/health" && method === "GET")
      return { response: new Response(null, { status: 204 }), bytes: undefined }
    const handler = this.#handlers.get(pathname)
    if (!handler) throw new AppError("not_found", `no such endpoint: ${method} ${pathname}`)
    const permission = permissionOf[handler.service.typeName]
    checkAccess(holder.account, permission && { can: permission, of: "sandbox" })
    this.#settings.rates.count("exec", holder.account)
    const account = await holder.confirm()
    const caller = { core: this.#core, account, sandbox: found, user: userOf(headers) }
    const stop = new AbortController()
    const answer = await handler({
      httpVersion: "1.1",
      url,
      method,
      header: headers,
      body: withValidKey(body, holder),
      signal: AbortSignal.any([request.signal, stop.signal, holder.revoked]),
      contextValues: createContextValues().set(callerKey, caller),
    })
    return streamed(answer, { stop, revoked: holder.revoked })
  }

  /** Returns the answer that the SDKs take for a sandbox which is gone, if there is none. */
  async #find(account: Account, wireId: string): Promise<string | Response> {
    try {
      return (await findSandbox(this.#core, account, sandboxIdOf(wireId))).id
    } catch (error) {
      if (!(error instanceof AppError && error.code === "not_found")) throw error
      const gone = { sandboxId: wireId, message: "The sandbox was not found", code: 502 }
      return Response.json(gone, { status: 502 })
    }
  }
}

/** The user of the guest in an `Authorization: Basic` header, which has no password. */
function userOf(headers: Headers): string | undefined {
  const given = /^Basic (.+)$/.exec(headers.get("authorization") ?? "")?.[1]
  const name = given && Buffer.from(given, "base64").toString().split(":")[0]
  // The name of the user that e2b's templates have; ours call theirs otherwise.
  return name === undefined || name === "" || name === "user" ? undefined : name
}

function streamed(
  { status, header = new Headers(), body }: Awaited<ReturnType<UniversalHandler>>,
  { stop, revoked }: { stop: AbortController; revoked: AbortSignal },
): EnvdAnswer {
  const response = new Response(null, { status, headers: header })
  if (!body) return { response, bytes: undefined }
  const pieces = body[Symbol.asyncIterator]()
  let over: { reason: unknown } | undefined
  // A promise of the end that all reads race with would keep something of each.
  let giveUp: ((reason: unknown) => void) | undefined
  const end = (reason: unknown) => {
    over ??= { reason }
    giveUp?.(over.reason)
  }
  const listening = onRevoked(revoked, end)
  return {
    response,
    bytes: {
      pace: undefined,
      async read() {
        if (over) throw over.reason
        const { done, value } = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
          giveUp = reject
          pieces.next().then(resolve, reject)
        })
        return done ? undefined : value
      },
      close() {
        listening[Symbol.dispose]()
        end(new Error("the answer is over"))
        stop.abort()
      },
    },
  }
}

/** An error outside of a call: no key, no right, no such path. A stream has it in its last message. */
function refusal(request: Request, error: unknown): Response {
  const known = toConnectError(error)
  const type = request.headers.get("content-type") ?? ""
  if (type.startsWith(streamType)) {
    const last = Buffer.from(JSON.stringify(endStreamToJson(new Headers(), known, undefined)))
    return new Response(encodeEnvelope(endStreamFlag, last), { headers: { "content-type": streamType } })
  }
  const { code, rawMessage: message } = known
  return Response.json({ code: codeToString(code), message }, { status: codeToHttpStatus(code) })
}

const streamType = "application/connect+json"

const codes = {
  invalid: Code.InvalidArgument,
  unauthenticated: Code.Unauthenticated,
  forbidden: Code.PermissionDenied,
  command_not_found: Code.InvalidArgument,
  not_found: Code.NotFound,
  conflict: Code.AlreadyExists,
  too_large: Code.ResourceExhausted,
  limit_exceeded: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
  internal: Code.Internal,
} as const

export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error
  const known = toAppError(error)
  const code = known.reason === "no_user" ? Code.Unauthenticated : codes[known.code]
  return new ConnectError(known.code === "internal" ? "internal error" : known.message, code)
}

/** Errors of `core` become the protocol's; bugs are logged. */
function told({
  log,
}: Pick<Core, "log">): Parameters<typeof createConnectRouter>[0] extends infer O
  ? NonNullable<NonNullable<O> extends { interceptors?: (infer I)[] } ? I : never>
  : never {
  const fail = (error: unknown): never => {
    const known = toConnectError(error)
    if (known.code === Code.Internal) log.error({ error }, "internal error")
    throw known
  }
  return ((next: (request: never) => Promise<{ stream: boolean; message: AsyncIterable<unknown> }>) =>
    async (request: never) => {
      const response = await next(request).catch(fail)
      if (!response.stream) return response
      const messages = response.message
      async function* explained() {
        try {
          yield* messages
        } catch (error) {
          fail(error)
        }
      }
      return { ...response, message: explained() }
    }) as never
}
