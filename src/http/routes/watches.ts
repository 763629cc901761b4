/** Handlers of watches of directories. */

import { createWatch, deleteWatch, followWatch, readWatch } from "../../core/file-watches.ts"
import type { Handlers } from "../context.ts"
import { viewFileEvent } from "../views/file.ts"
import { watchReply } from "../watch-reply.ts"

export const watches = {
  async watchFiles({ core, account, revoked, params }, { query }) {
    const directory = { path: query.path, recursive: query.recursive === "true" }
    return watchReply((signal) => followWatch(core, account, params.id, { directory }, signal), revoked)
  },

  async createWatch({ core, account, params }, { body }) {
    return { ...body, ...(await createWatch(core, account, params.id, body)) }
  },

  async readWatch({ core, account, revoked, params, request }, { query }) {
    const place = { watch: params.watch, after: query.after }
    if (request.headers.get("accept")?.toLowerCase().includes("application/x-ndjson"))
      return watchReply((signal) => followWatch(core, account, params.id, place, signal), revoked)
    const { events, next, ended } = await readWatch(core, account, params.id, place)
    return { events: events.map(viewFileEvent), next, ended }
  },

  async deleteWatch({ core, account, params }) {
    await deleteWatch(core, account, params.id, params.watch)
    return { status: "ok" }
  },
} satisfies Partial<Handlers>
