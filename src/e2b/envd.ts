/**
 * The services of e2b's agent, which end in the daemon and not in the guest. Requests name their sandbox in headers;
 * the Connect library has the protocol, and what it calls works on `core`.
 */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Permission } from "@bhatti/contract/permission"
import {
  createConnectRouter,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect"
import type { UniversalHandler } from "@connectrpc/connect/protocol"
import type { Core } from "../core/core.ts"
import { findSandbox } from "../core/find.ts"
import type { KeyHolder } from "../core/keys.ts"
import { checkAccess } from "../gate/access.ts"
import { checkBrowserSafety } from "../gate/browser-safety.ts"
import { logRequest, requestIdOf } from "../gate/request.ts"
import type { RequestRates } from "../gate/request-rates.ts"
import { unlessRevoked, withValidKey } from "../gate/revocation.ts"
import { hostName } from "../lib/host-name.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { type Caller, userNamed } from "./caller.ts"
import { refusal, told } from "./connect-errors.ts"
import { EnvdCallers, filesPath } from "./envd-caller.ts"
import { fileError, noSuchEndpoint } from "./errors.ts"
import { readAt, writeAt } from "./file-transfers.ts"
import { filesystemHandlers } from "./filesystem.ts"
import { sandboxIdOf } from "./ids.ts"
import { processHandlers } from "./processes.ts"
import { filesystemService, processService } from "./protocol.ts"
import { type EnvdAnswer, streamed } from "./streamed.ts"

/** As much input as a WebSocket may have waiting. */
const messageBytesMax = 4 * limits.execStreamWindowBytes

const callerKey = createContextKey<Caller | undefined>(undefined)

const permissionOf: Record<string, Permission> = {
  "process.Process": "exec",
  "filesystem.Filesystem": "files",
}

type Settings = { apiHosts: readonly string[]; allowedOrigins?: readonly string[]; rates: RequestRates }

export class Envd {
  readonly #core: Core
  readonly #settings: Settings
  readonly #callers: EnvdCallers
  readonly #handlers: Map<string, UniversalHandler>

  constructor(core: Core, settings: Settings) {
    this.#core = core
    this.#settings = settings
    this.#callers = new EnvdCallers(core)
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
    router.service(filesystemService, filesystemHandlers(callerOf) as never)
    this.#handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))
  }

  claims(request: Request): boolean {
    return this.#callers.claims(request)
  }

  async answer(request: Request, body: AsyncIterable<Uint8Array>): Promise<EnvdAnswer> {
    const startedAt = performance.now()
    const id = requestIdOf(request.headers)
    const { pathname } = new URL(request.url)
    let user: string | undefined
    const about = () => ({ requestId: id, user, log: this.#core.log })
    const answered = await this.#route(request, body, (name) => {
      user = name
    }).catch((error: unknown) => ({
      response: pathname === filesPath ? fileError(error, about()) : refusal(request, error),
      bytes: undefined,
    }))
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
    const { headers, method } = request
    const ownHost = this.#callers.sandboxOfHost(headers) && hostName(headers.get("host") ?? "")
    const apiHosts = [...this.#settings.apiHosts, ...(ownHost ? [ownHost] : [])]
    checkBrowserSafety(request, { ...this.#settings, apiHosts })
    const { pathname } = new URL(request.url)
    const { holder, sandbox: wireId } = await this.#callers.of(request)
    if (!holder) return { response: goneAnswer(wireId), bytes: undefined }
    onUser(holder.account.name)
    const found = await this.#find(holder.account, wireId)
    if (found instanceof Response) return { response: found, bytes: undefined }
    if (pathname === "/health" && method === "GET")
      return { response: new Response(null, { status: 204 }), bytes: undefined }
    const handler = this.#handlers.get(pathname)
    const isFile = pathname === filesPath && (method === "GET" || method === "POST")
    if (!handler && !isFile) throw noSuchEndpoint(method, pathname)
    const permission = handler ? permissionOf[handler.service.typeName] : "files"
    checkAccess(holder.account, permission && { can: permission, of: "sandbox" })
    this.#settings.rates.count(permission === "exec" ? "exec" : "other", holder.account)
    const account = await holder.confirm()
    const { id: sandbox, imageConfig } = found
    const caller = { core: this.#core, account, sandbox, imageConfig, user: userOf(headers) }
    const asked = { request, body: withValidKey(body, holder), holder }
    return handler ? await call(handler, caller, asked) : await transfer(caller, asked)
  }

  /** Returns the answer that the SDKs take for a sandbox which is gone, if there is none. */
  async #find(account: Account, wireId: string): Promise<SandboxRecord | Response> {
    try {
      return await findSandbox(this.#core, account, sandboxIdOf(wireId))
    } catch (error) {
      if (!(error instanceof AppError && error.code === "not_found")) throw error
      return goneAnswer(wireId)
    }
  }
}

type AskedCall = { request: Request; body: AsyncIterable<Uint8Array>; holder: KeyHolder }

async function call(
  handler: UniversalHandler,
  caller: Caller,
  { request, body, holder }: AskedCall,
): Promise<EnvdAnswer> {
  const stop = new AbortController()
  const { url, method, headers, signal } = request
  const answer = await handler({
    ...{ httpVersion: "1.1", url, method, header: headers, body },
    signal: AbortSignal.any([signal, stop.signal, holder.revoked]),
    contextValues: createContextValues().set(callerKey, caller),
  })
  return streamed(answer, { stop, revoked: holder.revoked })
}

/** Reads or writes files. */
async function transfer(caller: Caller, { request, body, holder }: AskedCall): Promise<EnvdAnswer> {
  const query = new URL(request.url).searchParams
  const path = query.get("path")
  // A signature is for the user in the address alone.
  const usual = query.has("signature") ? undefined : caller.user
  const own = { ...caller, user: userNamed(query.get("username")) ?? usual }
  const stop = new AbortController()
  if (request.method === "GET") {
    const { headers, body: content } = await unlessRevoked(
      holder.revoked,
      readAt(own, path ?? "", stop.signal),
      () => stop.abort(),
    )
    if (!content) return { response: new Response("", { headers }), bytes: undefined }
    const answer = { status: 200, header: new Headers(headers), body: content }
    return streamed(answer, { stop, revoked: holder.revoked })
  }
  const signal = AbortSignal.any([request.signal, holder.revoked])
  return { response: Response.json(await writeAt(own, request, { path, body, signal })), bytes: undefined }
}

function goneAnswer(sandboxId: string): Response {
  return Response.json({ sandboxId, message: "The sandbox was not found", code: 502 }, { status: 502 })
}

/** The user of the guest in an `Authorization: Basic` header, which has no password. */
function userOf(headers: Headers): string | undefined {
  const given = /^Basic (.+)$/.exec(headers.get("authorization") ?? "")?.[1]
  return userNamed(given && Buffer.from(given, "base64").toString().split(":")[0])
}
