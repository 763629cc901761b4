/** The listening sockets of the HTTP interface. */

import { rmSync } from "node:fs"
import type { Server } from "bun"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import type { SocketState } from "./context.ts"
import { onRevoked } from "./revocation.ts"

/** Seconds without a byte before a connection is closed; handlers that wait long lift it for their request. */
const idleTimeoutSec = 60
/** A message is at most a window of input and its byte of channel. */
const socketMessageBytesMax = limits.execStreamWindowBytes + 1024
/** What fits into `sun_path`. */
const socketPathBytesMax = 107

export function listen(
  app: { fetch: (request: Request, env: { server: Server<SocketState> }) => Response | Promise<Response> },
  at: { hostname: string; port: number } | { unix: string },
): Server<SocketState> {
  try {
    return Bun.serve<SocketState>({
      // The types allow no idle timeout for unix sockets, where the default of ten seconds holds all the same.
      ...(at as { hostname: string; port: number }),
      // Behind a unix socket a handler cannot lift it for its request, and the front sees to idle clients.
      idleTimeout: "unix" in at ? 0 : idleTimeoutSec,
      // Every handler bounds its own body as it reads it; an archive has no bound of its own.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      // Otherwise Bun prints errors of streamed bodies on standard error, stack and all.
      development: false,
      fetch: (request, server) => app.fetch(request, { server }),
      websocket: {
        maxPayloadLength: socketMessageBytesMax,
        backpressureLimit: 4 * limits.execStreamWindowBytes,
        perMessageDeflate: false,
        open(socket) {
          const { data } = socket
          data.listening = onRevoked(data.revoked, (reason) => data.session.fail(socket, reason))
          data.session.onOpen?.(socket)
        },
        message: (socket, message) => socket.data.session.onMessage(socket, message),
        drain: (socket) => socket.data.session.onDrain(),
        close({ data }) {
          data.listening?.[Symbol.dispose]()
          data.session.onClose()
        },
      },
    })
  } catch (cause) {
    const where = "unix" in at ? at.unix : `${at.hostname}:${at.port}`
    throw new AppError("unavailable", `cannot listen on ${where}`, { cause, retryable: false })
  }
}

/** For the front alone: only this user's processes may connect. A socket that a killed daemon left is replaced. */
export function listenPrivately(app: Parameters<typeof listen>[0], path: string): Server<SocketState> {
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    throw new AppError("invalid", `${path} is too long a name for a socket`, {
      hint: "choose a data directory with a shorter path",
    })
  }
  rmSync(path, { force: true })
  const maskBefore = process.umask(0o177)
  try {
    return listen(app, { unix: path })
  } finally {
    process.umask(maskBefore)
  }
}
