/** What every handler is given besides its parsed input. */

import type { Server } from "bun"
import type { Core } from "../core/core.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession } from "./socket-session.ts"

/** What a WebSocket carries with it. */
export type SocketState = { session: SocketSession }

export type RequestContext = {
  core: Core
  account: Account
  requestId: string
  request: Request
  server: Server<SocketState>
  /** Parameters of the path, decoded. */
  params: Record<string, string>
}
