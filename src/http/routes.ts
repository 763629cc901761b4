/** The handler of every endpoint of the contract: one call into `core` each. A missing one does not compile. */

import type { z } from "zod"
import type { Api } from "../contract/api.ts"
import type { Endpoint } from "../contract/endpoint.ts"
import { AppError } from "../contract/errors.ts"
import { limits } from "../contract/limits.ts"
import { createSandbox } from "../core/create.ts"
import { destroySandbox } from "../core/destroy.ts"
import { execInSandbox } from "../core/exec.ts"
import { findSandbox } from "../core/find.ts"
import { viewSandbox } from "../core/sandbox-view.ts"
import type { RequestContext } from "./context.ts"
import { bufferedReply, streamedReply } from "./exec-reply.ts"
import { ExecSocket } from "./exec-socket.ts"

type Body<E extends Endpoint> = E extends { body: infer B extends z.ZodType } ? z.infer<B> : undefined
/** A handler answers with the contract's reply, or with a whole response where it streams. */
type Handler<E extends Endpoint> = (
  context: E extends { isPublic: true } ? Omit<RequestContext, "account"> : RequestContext,
  body: Body<E>,
) => Promise<z.infer<E["reply"]> | Response>
export type Handlers = { [K in keyof Api]: Handler<Api[K]> }

export type About = {
  version: string
  accelerator: "kvm" | "tcg"
  acceleratorReason: string
  warnings: string[]
}

export function handlers(about: About): Handlers {
  return {
    async health({ core }) {
      return { status: "ok", uptime: Math.round((performance.now() - core.startedAt) / 1000) }
    },

    async version() {
      return {
        version: about.version,
        accelerator: about.accelerator,
        accelerator_reason: about.acceleratorReason,
        warnings: about.warnings,
      }
    },

    async listSandboxes({ core, account }) {
      return (await core.store.sandboxes.listOf(account.id)).map(viewSandbox)
    },

    async createSandbox({ core, account, request, server }, body) {
      // The first sandbox of a new size waits for its template.
      server.timeout(request, 0)
      return createSandbox(core, account, body)
    },

    async getSandbox({ core, account, params }) {
      return viewSandbox(await findSandbox(core, account, idOf(params)))
    },

    async destroySandbox({ core, account, params, request, server }) {
      server.timeout(request, 0)
      await destroySandbox(core, account, idOf(params))
      return { status: "destroyed" }
    },

    async exec({ core, account, params, request, server }, body) {
      server.timeout(request, 0)
      const running = await execInSandbox(core, account, idOf(params), {
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
        // A command that does not read its input to the end is no error.
        void running.process.write(Buffer.from(body.stdin)).then(
          () => running.process.endInput(),
          () => undefined,
        )
      }
      const wantsEvents = request.headers.get("accept")?.includes("application/x-ndjson") ?? false
      return wantsEvents ? streamedReply(running) : bufferedReply(running)
    },

    async execSocket({ core, account, params, requestId, request, server }) {
      const session = new ExecSocket({ core, account, nameOrId: idOf(params), requestId })
      if (server.upgrade(request, { data: { session } })) return new Response(null)
      throw new AppError("invalid", "this address speaks WebSocket only")
    },
  }
}

function idOf(params: Record<string, string>): string {
  return params["id"] ?? ""
}
