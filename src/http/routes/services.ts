/** Handlers of services. */

import { controlService, listServices } from "../../core/services-of-owner.ts"
import type { Handlers } from "../context.ts"
import { viewService } from "../views/services.ts"

export const services = {
  async listServices({ core, account, params }) {
    return (await listServices(core, account, params.id)).map(viewService)
  },

  async controlService({ core, account, params }, { body }) {
    const { service } = params
    return viewService(await controlService(core, account, params.id, { service, action: body.action }))
  },
} satisfies Partial<Handlers>
