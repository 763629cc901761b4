/** Handlers of ports that listen in a sandbox, and of published ones. */

import { Port } from "@bhatti/contract/publish"
import { parseInput } from "@bhatti/contract/wording"
import { z } from "zod"
import { askGuest } from "../../core/ask-guest.ts"
import { listPublished, publishPort, unpublishPort } from "../../core/publish.ts"
import type { Handlers } from "../context.ts"
import { viewPublished } from "../views/published.ts"

const PortParameter = z.coerce.number().pipe(Port)

export const publish = {
  async listPorts({ core, account, params }) {
    return askGuest(core, account, params.id, { op: "ports" })
  },

  async publishPort({ core, account, params }, { body }) {
    const { published, isNew } = await publishPort(core, account, params.id, body)
    const reply = viewPublished(published)
    return isNew ? reply : Response.json(reply)
  },

  async listPublished({ core, account, params }) {
    return (await listPublished(core, account, params.id)).map(viewPublished)
  },

  async unpublishPort({ core, account, params }, { query }) {
    const port = parseInput(PortParameter, params.port)
    await unpublishPort(core, account, params.id, { port, alias: query.alias })
    return new Response(null, { status: 204 })
  },
} satisfies Partial<Handlers>
