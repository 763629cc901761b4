/** Handlers of secrets. */

import { deleteSecret, listSecrets, setSecret } from "../../core/secrets.ts"
import type { Handlers } from "../context.ts"
import { viewSecret } from "../views/secret.ts"

export const secrets = {
  async listSecrets({ core, account }) {
    return (await listSecrets(core, account)).map(viewSecret)
  },

  async setSecret({ core, account }, { body }) {
    return viewSecret(await setSecret(core, account, body))
  },

  async deleteSecret({ core, account, params }) {
    await deleteSecret(core, account, params.name)
    return { status: "deleted" }
  },
} satisfies Partial<Handlers>
