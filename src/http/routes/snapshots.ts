/** Handlers of named snapshots. */

import {
  createSnapshot,
  deleteSnapshot,
  getSnapshot,
  listSnapshots,
  resumeSnapshot,
} from "../../core/snapshots.ts"
import type { Handlers } from "../context.ts"

export const snapshots = {
  async checkpointSandbox({ core, account, params }, { body }) {
    return createSnapshot(core, account, params.id, body.name)
  },

  async listSnapshots({ core, account }) {
    return listSnapshots(core, account)
  },

  async getSnapshot({ core, account, params }) {
    return getSnapshot(core, account, params.name)
  },

  async deleteSnapshot({ core, account, params }) {
    await deleteSnapshot(core, account, params.name)
    return { status: "deleted" }
  },

  async resumeSnapshot({ core, account, params, request }, { body }) {
    return resumeSnapshot(core, account, params.name, body, { signal: request.signal })
  },
} satisfies Partial<Handlers>
