/** The interface of a WebSocket's session: it handles the client's messages. */

import type { ServerWebSocket } from "bun"
import type { SocketState } from "./context.ts"

export interface SocketSession {
  onOpen?(socket: ServerWebSocket<SocketState>): void
  onMessage(socket: ServerWebSocket<SocketState>, message: string | Buffer): void
  onDrain(): void
  /** Sends the client an error and closes the socket. */
  fail(socket: ServerWebSocket<SocketState>, error: unknown): void
  onClose(): void
}
