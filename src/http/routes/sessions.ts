/** Handlers of sessions and their terminals. */

import { AppError } from "@bhatti/contract/errors"
import { killSession, listSessions, readSessionOutput } from "../../core/processes.ts"
import { bytesOf, bytesReply } from "../bytes.ts"
import type { Handlers } from "../context.ts"
import { ShellSocket } from "../shell-socket.ts"
import { viewSession } from "../views/session.ts"

export const sessions = {
  async shellSocket({ core, account, params, requestId, upgrade }, { query }) {
    const session = new ShellSocket({ core, account, nameOrId: params.id, requestId, query })
    if (upgrade(session)) return new Response(null)
    throw new AppError("invalid", "this endpoint accepts only WebSockets")
  },

  async listSessions({ core, account, params }) {
    return (await listSessions(core, account, params.id)).map(viewSession)
  },

  async killSession({ core, account, params }, { body }) {
    await killSession(core, account, params.id, { session: params.session, signal: body.signal })
    return { status: "killed" }
  },

  async readSession({ core, account, revoked, params }) {
    const process = await readSessionOutput(core, account, params.id, params.session)
    return bytesReply(bytesOf(process), { headers: {}, revoked, log: core.log })
  },
} satisfies Partial<Handlers>
