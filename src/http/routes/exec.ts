/** Handlers of commands. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { GuestProcess } from "../../core/host.ts"
import { execInSandbox } from "../../core/processes.ts"
import { commandOf, keyedOf } from "../command.ts"
import type { Handlers } from "../context.ts"
import { bufferedReply, streamedReply } from "../exec-reply.ts"
import { ProcessSocket } from "../process-socket.ts"

export const exec = {
  async exec({ core, account, revoked, params, request }, { body }) {
    const running = await execInSandbox(core, account, params.id, {
      command: { ...commandOf(body), stdin: body.stdin !== undefined },
      timeoutSec: body.timeout_sec ?? limits.execTimeoutSecDefault,
      keyed: keyedOf(body),
      ringBytes: limits.execBufferedBytesMax,
      signal: request.signal,
    })
    if (body.stdin !== undefined) {
      // A command may end without reading all its input.
      void writeInput(running.process, Buffer.from(body.stdin)).catch(() => undefined)
    }
    const wantsEvents = request.headers.get("accept")?.toLowerCase().includes("application/x-ndjson") ?? false
    return wantsEvents ? streamedReply(running, revoked) : bufferedReply(running, revoked)
  },

  async execSocket({ core, account, params, requestId, upgrade }) {
    const session = new ProcessSocket({ core, account, nameOrId: params.id, requestId })
    if (upgrade(session)) return new Response(null)
    throw new AppError("invalid", "this endpoint accepts only WebSockets")
  },
} satisfies Partial<Handlers>

/** A command that was started before, by its key, has taken a part of the input already. */
async function writeInput(process: GuestProcess, bytes: Uint8Array): Promise<void> {
  const { input, written = input } = await process.attached
  await process.write(bytes.subarray(written))
  process.endInput()
}
