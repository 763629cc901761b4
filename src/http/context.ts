/** A handler's input and result, and the session of a WebSocket. */

import type { Api } from "@bhatti/contract/api"
import type { Endpoint, PathParameter } from "@bhatti/contract/endpoint"
import type { ServerWebSocket } from "bun"
import type { z } from "zod"
import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import type { Account } from "../store/users.ts"
import type { StreamedAnswer } from "./streamed-answer.ts"
import type { WaitingMessages } from "./waiting-messages.ts"

/** Handles the messages of a WebSocket's client. */
export interface SocketSession {
  onOpen?(socket: ServerWebSocket<SocketState>): void
  onMessage(socket: ServerWebSocket<SocketState>, message: string | Buffer): void
  onDrain(): void
  /** Sends the client an error and closes the socket. */
  fail(socket: ServerWebSocket<SocketState>, error: unknown): void
  onClose(): void
}

/** Data attached to a WebSocket. */
export type SocketState = {
  session: SocketSession
  holder: KeyHolder
  /** Set while it is open: ends the socket when its key is revoked. */
  listening?: Disposable
  /** Messages that its session has not received yet. */
  waiting?: WaitingMessages
}

export type RequestContext<Parameter extends string = string> = {
  core: Core
  account: Account
  /** Aborts when the request's key is revoked. */
  revoked: AbortSignal
  requestId: string
  request: Request
  /** The request's body as a stream that can be read once. Reading throws if the key is revoked before the end. */
  body: AsyncIterable<Uint8Array>
  /** Returns a ticket that opens one WebSocket with the request's key. */
  issueTicket(): Promise<string>
  /** Returns false if the request is not a WebSocket upgrade. */
  upgrade(session: SocketSession): boolean
  /** Decoded parameters of the path. */
  params: Record<Parameter, string>
}

type Body<E extends Endpoint> = E extends { body: infer B extends z.ZodType } ? z.infer<B> : undefined
type Query<E extends Endpoint> = E extends { query: infer Q extends z.ZodType } ? z.infer<Q> : undefined
type Context<E extends Endpoint> = E extends { isPublic: true }
  ? Omit<RequestContext, "account" | "revoked" | "issueTicket">
  : RequestContext<PathParameter<E["path"]>>
/** A handler makes one call into `core`. It returns the contract's reply, or a whole response if it streams. */
type Handler<E extends Endpoint> = (
  context: Context<E>,
  input: { body: Body<E>; query: Query<E> },
) => Promise<z.infer<E["reply"]> | Response | StreamedAnswer>
export type Handlers = { [K in keyof Api]: Handler<Api[K]> }
