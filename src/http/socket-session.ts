/** What a WebSocket of ours does with what its client sends. */

import type { ServerWebSocket } from "bun"
import type { SocketState } from "./context.ts"

export interface SocketSession {
  onOpen?(socket: ServerWebSocket<SocketState>): void
  onMessage(socket: ServerWebSocket<SocketState>, message: string | Buffer): void
  onDrain(): void
  /** Ends it with an error that its client is told. */
  fail(socket: ServerWebSocket<SocketState>, error: unknown): void
  onClose(): void
}
