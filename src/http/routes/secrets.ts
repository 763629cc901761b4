/** Handlers of secrets. */

import type { Handlers } from "../context.ts"

export const secrets = {
  async listSecrets({ core, account }) {
    return core.store.secrets.list(account.id)
  },

  async setSecret({ core, account }, { body }) {
    const secret = await core.store.secrets.set(account.id, body.name, body.value)
    core.events.record({ type: "secret.set", userId: account.id, meta: { by: "user", name: body.name } })
    return secret
  },

  async deleteSecret({ core, account, params }) {
    const name = params.name
    await core.store.secrets.remove(account.id, name)
    core.events.record({ type: "secret.deleted", userId: account.id, meta: { by: "user", name } })
    return { status: "deleted" }
  },
} satisfies Partial<Handlers>
