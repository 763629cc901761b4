/** Handlers of named snapshots. */

import {
  createSnapshot,
  deleteSnapshot,
  findSnapshot,
  listSnapshots,
  resumeSnapshot,
} from "../../core/snapshots.ts"
import type { Handlers } from "../context.ts"
import { viewSandbox } from "../views/sandbox.ts"
import { viewSnapshot } from "../views/snapshot.ts"

export const snapshots = {
  async checkpointSandbox({ core, account, params }, { body }) {
    return viewSnapshot(await createSnapshot(core, account, params.id, body.name))
  },

  async listSnapshots({ core, account }) {
    return (await listSnapshots(core, account)).map(viewSnapshot)
  },

  async getSnapshot({ core, account, params }) {
    return viewSnapshot(await findSnapshot(core, account, params.name))
  },

  async deleteSnapshot({ core, account, params }) {
    await deleteSnapshot(core, account, params.name)
    return { status: "deleted" }
  },

  async resumeSnapshot({ core, account, params, request }, { body }) {
    return viewSandbox(await resumeSnapshot(core, account, params.name, body, { signal: request.signal }))
  },
} satisfies Partial<Handlers>
