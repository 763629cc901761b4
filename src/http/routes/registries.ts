/** Handlers of logins at registries. */

import { listLogins, logIn, logOut } from "../../core/registry-logins.ts"
import type { Handlers } from "../context.ts"

export const registries = {
  async listRegistries({ core, account }) {
    return (await listLogins(core, account)).map(viewLogin)
  },

  async logIn({ core, account }, { body: { host, ...credential } }) {
    return viewLogin(await logIn(core, account, host, credential))
  },

  async logOut({ core, account, params }) {
    await logOut(core, account, params.host)
    return { status: "deleted" }
  },
} satisfies Partial<Handlers>

function viewLogin(login: { host: string; username: string; createdAt: string }) {
  return { host: login.host, username: login.username, created_at: login.createdAt }
}
