/** The listening socket of the HTTP interface. */

import type { Server } from "bun"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import type { SocketState } from "./context.ts"

/** Seconds without a byte before a connection is closed; handlers that wait long lift it for their request. */
const idleTimeoutSec = 60
/** A message is at most a window of input and its byte of channel. */
const socketMessageBytesMax = limits.execStreamWindowBytes + 1024

export function listen(
  app: { fetch: (request: Request, env: { server: Server<SocketState> }) => Response | Promise<Response> },
  address: string,
): Server<SocketState> {
  const at = address.lastIndexOf(":")
  const hostname = address.slice(0, at).replace(/^\[|\]$/g, "")
  const port = Number(address.slice(at + 1))
  try {
    return Bun.serve<SocketState>({
      hostname,
      port,
      idleTimeout: idleTimeoutSec,
      // Every handler bounds its own body as it reads it; an archive has no bound of its own.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      fetch: (request, server) => app.fetch(request, { server }),
      websocket: {
        maxPayloadLength: socketMessageBytesMax,
        backpressureLimit: 4 * limits.execStreamWindowBytes,
        perMessageDeflate: false,
        open: (socket) => socket.data.session.onOpen?.(socket),
        message: (socket, message) => socket.data.session.onMessage(socket, message),
        drain: (socket) => socket.data.session.onDrain(),
        close: (socket) => socket.data.session.onClose(),
      },
    })
  } catch (cause) {
    throw new AppError("unavailable", `cannot listen on ${address}`, {
      cause,
      hint: "is another daemon running? choose another address with --listen HOST:PORT",
      retryable: false,
    })
  }
}
