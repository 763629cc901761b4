/** What every handler is given besides its parsed input. */

import type { Core } from "../core/core.ts"
import type { KeyHolder } from "../core/keys.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession } from "./socket-session.ts"
import type { WaitingMessages } from "./waiting-messages.ts"

/** What a WebSocket carries with it. */
export type SocketState = {
  session: SocketSession
  holder: KeyHolder
  /** While it is open: it ends with its key. */
  listening?: Disposable
  /** Messages that its session has not had yet. */
  waiting?: WaitingMessages
}

export type RequestContext = {
  core: Core
  account: Account
  /** Aborts when the key that the request came with is taken away. */
  revoked: AbortSignal
  requestId: string
  request: Request
  /** The request's body as it comes; it can be read once. Reading throws when the key is taken away before its end. */
  body: AsyncIterable<Uint8Array>
  /** False: this is no request for a WebSocket. */
  upgrade(session: SocketSession): boolean
  /** Parameters of the path, decoded. */
  params: Record<string, string>
}
