/** WebSockets: Bun's server behind a unix socket, to which the front passes on whoever asks for another protocol. */

import { rmSync } from "node:fs"
import type { Server } from "bun"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import type { Log } from "../core/bounded-log.ts"
import type { App } from "./app.ts"
import type { SocketState } from "./context.ts"
import { errorResponse } from "./errors.ts"
import { onRevoked } from "./revocation.ts"
import { WaitingMessages } from "./waiting-messages.ts"

/** A message is at most a window of input and its byte of channel. */
const socketMessageBytesMax = limits.execStreamWindowBytes + 1024
/** What fits into `sun_path`. */
const socketPathBytesMax = 107

/** For the front alone: only this user's processes may connect. A socket that a killed daemon left is replaced. */
export function listenPrivately(app: App, path: string, log: Log): Server<SocketState> {
  if (Buffer.byteLength(path) > socketPathBytesMax) {
    throw new AppError("invalid", `${path} is too long a name for a socket`, {
      hint: "choose a data directory with a shorter path",
    })
  }
  rmSync(path, { force: true })
  const maskBefore = process.umask(0o177)
  try {
    return listen(app, path, log)
  } catch (cause) {
    throw new AppError("unavailable", `cannot listen on ${path}`, { cause, retryable: false })
  } finally {
    process.umask(maskBefore)
  }
}

function listen(app: App, path: string, log: Log): Server<SocketState> {
  return Bun.serve<SocketState>({
    unix: path,
    // The types allow no idle timeout for unix sockets, where the default of ten seconds holds all the same.
    ...({ idleTimeout: 0 } as object),
    // Otherwise Bun prints errors of streamed bodies on standard error, stack and all.
    development: false,
    async fetch(request, server) {
      const upgrade = (data: SocketState) => server.upgrade(request, { data })
      const { response, bytes } = await app(request, request.body ?? new Blob().stream(), upgrade)
      if (!bytes) return response
      bytes.close()
      return errorResponse(
        new AppError("invalid", "this endpoint is no WebSocket", { hint: "ask again without Upgrade" }),
        { requestId: response.headers.get("x-request-id") ?? "", log },
      )
    },
    websocket: {
      maxPayloadLength: socketMessageBytesMax,
      backpressureLimit: 4 * limits.execStreamWindowBytes,
      perMessageDeflate: false,
      open(socket) {
        const { data } = socket
        data.listening = onRevoked(data.holder.revoked, (reason) => data.session.fail(socket, reason))
        data.waiting = new WaitingMessages(socket)
        data.session.onOpen?.(socket)
      },
      message: ({ data }, message) => data.waiting?.add(message),
      drain: (socket) => socket.data.session.onDrain(),
      close({ data }) {
        data.listening?.[Symbol.dispose]()
        data.session.onClose()
      },
    },
  })
}
