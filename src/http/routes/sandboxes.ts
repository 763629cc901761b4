/** Handlers of sandboxes: create, list, edit, stop, start, repair, destroy. */

import { createSandbox } from "../../core/create.ts"
import { createSandboxes } from "../../core/create-several.ts"
import { destroySandbox } from "../../core/destroy.ts"
import { editSandbox } from "../../core/edit.ts"
import { findSandbox, listSandboxes } from "../../core/find.ts"
import { repairByName } from "../../core/repair-sandbox.ts"
import { restartByName } from "../../core/restart.ts"
import { describeById, describeSandboxes } from "../../core/sandbox.ts"
import { startByName, stopByName } from "../../core/stop-start.ts"
import { whySandbox } from "../../core/why.ts"
import type { Handlers } from "../context.ts"
import { createInput, editInput, viewSandbox, viewWhy } from "../views/sandbox.ts"

export const sandboxes = {
  async listSandboxes({ core, account }, { query }) {
    const records = await listSandboxes(core, account, [query.label ?? []].flat())
    return (await describeSandboxes(core, records)).map(viewSandbox)
  },

  async createSandbox({ core, account, request }, { body }) {
    const { sandbox, isNew } = await createSandbox(core, account, createInput(body), {
      signal: request.signal,
    })
    const reply = viewSandbox(sandbox)
    return isNew ? reply : Response.json(reply, { headers: { "x-bhatti-existing": "true" } })
  },

  async createSandboxes({ core, account, request }, { body }) {
    const { count, ...input } = body
    const options = { count, signal: request.signal }
    return (await createSandboxes(core, account, createInput(input), options)).map(viewSandbox)
  },

  async getSandbox({ core, account, params }) {
    const { id } = await findSandbox(core, account, params.id)
    return viewSandbox(await describeById(core, id))
  },

  async destroySandbox({ core, account, params }) {
    await destroySandbox(core, account, params.id)
    return { status: "destroyed" }
  },

  async updateSandbox({ core, account, params }, { body }) {
    return viewSandbox(await editSandbox(core, account, params.id, editInput(body)))
  },

  async whySandbox({ core, account, params }) {
    return viewWhy(await whySandbox(core, account, params.id))
  },

  async stopSandbox({ core, account, params }) {
    return viewSandbox(await stopByName(core, account, params.id))
  },

  async startSandbox({ core, account, params }, { body }) {
    return viewSandbox(await startByName(core, account, params.id, body))
  },

  async repairSandbox({ core, account, params }) {
    const { result, output, sandbox } = await repairByName(core, account, params.id)
    return { result, output, sandbox: viewSandbox(sandbox) }
  },

  async restartSandbox({ core, account, params }) {
    return viewSandbox(await restartByName(core, account, params.id))
  },
} satisfies Partial<Handlers>
