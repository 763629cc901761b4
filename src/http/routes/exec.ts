/** Handlers of commands. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { execInSandbox } from "../../core/processes.ts"
import type { Handlers } from "../context.ts"
import { bufferedReply, streamedReply } from "../exec-reply.ts"
import { ExecSocket } from "../exec-socket.ts"

export const exec = {
  async exec({ core, account, revoked, params, request }, { body }) {
    const running = await execInSandbox(core, account, params.id, {
      command: {
        argv: body.cmd,
        env: body.env,
        stdin: body.stdin !== undefined,
        ...(body.cwd !== undefined && { cwd: body.cwd }),
        ...(body.user !== undefined && { user: body.user }),
      },
      timeoutSec: body.timeout_sec ?? limits.execTimeoutSecDefault,
      signal: request.signal,
    })
    if (body.stdin !== undefined) {
      // A command may end without reading all its input.
      void running.process.write(Buffer.from(body.stdin)).then(
        () => running.process.endInput(),
        () => undefined,
      )
    }
    const wantsEvents = request.headers.get("accept")?.toLowerCase().includes("application/x-ndjson") ?? false
    return wantsEvents ? streamedReply(running, revoked) : bufferedReply(running, revoked)
  },

  async execSocket({ core, account, params, requestId, upgrade }) {
    const session = new ExecSocket({ core, account, nameOrId: params.id, requestId })
    if (upgrade(session)) return new Response(null)
    throw new AppError("invalid", "this endpoint accepts only WebSockets")
  },
} satisfies Partial<Handlers>
