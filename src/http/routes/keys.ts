/** Handlers of keys that may do less than their user. */

import { createKey, listKeys, revokeKey } from "../../core/api-keys.ts"
import type { Handlers } from "../context.ts"
import { viewKey } from "../views/key.ts"

export const keys = {
  async createKey({ core, account }, { body }) {
    const { can, name, sandboxes, expires_in: expiresInSec } = body
    const { apiKey, key } = await createKey(core, account, { name, can, sandboxes, expiresInSec })
    return { ...viewKey(apiKey), key }
  },

  async listKeys({ core, account }) {
    return (await listKeys(core, account)).map(viewKey)
  },

  async revokeKey({ core, account, params }) {
    await revokeKey(core, account, params.name)
    return { status: "revoked" }
  },
} satisfies Partial<Handlers>
