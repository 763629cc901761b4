/** The context that every handler gets besides its parsed input. */

import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession } from "./socket-session.ts"
import type { WaitingMessages } from "./waiting-messages.ts"

/** Data attached to a WebSocket. */
export type SocketState = {
  session: SocketSession
  holder: KeyHolder
  /** Set while it is open: ends the socket when its key is revoked. */
  listening?: Disposable
  /** Messages that its session has not received yet. */
  waiting?: WaitingMessages
}

export type RequestContext = {
  core: Core
  account: Account
  /** Aborts when the request's key is revoked. */
  revoked: AbortSignal
  requestId: string
  request: Request
  /** The request's body as a stream that can be read once. Reading throws if the key is revoked before the end. */
  body: AsyncIterable<Uint8Array>
  /** Returns false if the request is not a WebSocket upgrade. */
  upgrade(session: SocketSession): boolean
  /** Decoded parameters of the path. */
  params: Record<string, string>
}
