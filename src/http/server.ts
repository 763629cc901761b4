/** WebSockets: Bun's server behind a unix socket, to which the front forwards upgrade requests. */

import { rmSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Server } from "bun"
import type { Log } from "../core/bounded-log.ts"
import { onRevoked } from "../gate/revocation.ts"
import type { App } from "./app.ts"
import type { SocketState } from "./context.ts"
import { errorResponse } from "./errors.ts"
import { WaitingMessages } from "./waiting-messages.ts"

/** A message is at most a window of input plus its channel byte. */
const socketMessageBytesMax = limits.execStreamWindowBytes + 1024
/** The maximum length of `sun_path`. */
const socketPathBytesMax = 107

/** Listens for the front only: other users' processes cannot connect. Replaces a socket that a killed daemon left. */
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
    // The types lack an idle timeout for unix sockets, but the default of ten seconds applies to them too.
    ...({ idleTimeout: 0 } as object),
    // Otherwise Bun prints errors of streamed bodies, with the stack, on standard error.
    development: false,
    async fetch(request, server) {
      const upgrade = (data: SocketState) => server.upgrade(request, { data })
      const { response, bytes } = await app(request, request.body ?? new Blob().stream(), upgrade)
      if (!bytes) return response
      bytes.close()
      return errorResponse(
        new AppError("invalid", "this endpoint is not a WebSocket", {
          hint: "retry without the Upgrade header",
        }),
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
        data.waiting = new WaitingMessages({
          holder: data.holder,
          pass: (message) => data.session.onMessage(socket, message),
          fail: (error) => data.session.fail(socket, error),
        })
        data.session.onOpen?.(socket)
      },
      message: ({ data }, message) => data.waiting?.add(message),
      drain: (socket) => socket.data.session.onDrain(),
      close({ data }) {
        data.listening?.[Symbol.dispose]()
        // A client's last message may be the one that kills its command.
        void data.waiting?.done.then(() => data.session.onClose())
      },
    },
  })
}
