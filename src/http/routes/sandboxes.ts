/** Handlers of sandboxes: create, list, edit, stop, start, repair, destroy. */

import { createSandbox } from "../../core/create.ts"
import { createSandboxes } from "../../core/create-several.ts"
import { destroySandbox } from "../../core/destroy.ts"
import { editSandbox } from "../../core/edit.ts"
import { findSandbox, listSandboxes, noSandbox } from "../../core/find.ts"
import { repairByName } from "../../core/repair-sandbox.ts"
import { restartByName } from "../../core/restart.ts"
import { viewSandboxes } from "../../core/sandbox-view.ts"
import { startByName, stopByName } from "../../core/stop-start.ts"
import { whySandbox } from "../../core/why.ts"
import type { Handlers } from "../context.ts"

export const sandboxes = {
  async listSandboxes({ core, account }, { query }) {
    return viewSandboxes(core, await listSandboxes(core, account, [query.label ?? []].flat()))
  },

  async createSandbox({ core, account, request }, { body }) {
    const { sandbox, isNew } = await createSandbox(core, account, body, { signal: request.signal })
    return isNew ? sandbox : Response.json(sandbox, { headers: { "x-bhatti-existing": "true" } })
  },

  async createSandboxes({ core, account, request }, { body }) {
    const { count, ...input } = body
    return createSandboxes(core, account, input, { count, signal: request.signal })
  },

  async getSandbox({ core, account, params }) {
    const [sandbox] = await viewSandboxes(core, [await findSandbox(core, account, params.id)])
    return sandbox ?? Promise.reject(noSandbox(params.id))
  },

  async destroySandbox({ core, account, params }) {
    await destroySandbox(core, account, params.id)
    return { status: "destroyed" }
  },

  async updateSandbox({ core, account, params }, { body }) {
    return editSandbox(core, account, params.id, body)
  },

  async whySandbox({ core, account, params }) {
    return whySandbox(core, account, params.id)
  },

  async stopSandbox({ core, account, params }) {
    return stopByName(core, account, params.id)
  },

  async startSandbox({ core, account, params }, { body }) {
    return startByName(core, account, params.id, body)
  },

  async repairSandbox({ core, account, params }) {
    return repairByName(core, account, params.id)
  },

  async restartSandbox({ core, account, params }) {
    return restartByName(core, account, params.id)
  },
} satisfies Partial<Handlers>
