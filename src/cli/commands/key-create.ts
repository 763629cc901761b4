/** `bhatti key create`. */

import { permissions, permissionTexts } from "@bhatti/contract/permission"
import { command } from "../command.ts"
import { readDuration } from "../duration.ts"
import { WrongUsage } from "../wrong-usage.ts"

const table = permissions.map((one) => `  ${one.padEnd(10)} ${permissionTexts[one]}`).join("\n")

/** All that the calls of e2b's SDKs need. */
const e2bPermissions = ["read", "exec", "files", "power", "edit", "create", "destroy", "snapshots"] as const

export const keyCreate = command({
  description: `Makes a key for a program, such as an agent, that may do less than you. Everything that --can does not name is refused, and other sandboxes than those of
--sandbox do not exist for it. The key is printed once. It ends with bhatti key revoke, when it expires, and with a rotation of your own key; what is open with it ends too.

Permissions:
${table}

--e2b is for programs that use e2b's SDKs (E2B_API_KEY), where the operator has set e2b: on. Its permissions are ${e2bPermissions.join(", ")},
unless --can says otherwise.

Without --sandbox it is for all your sandboxes, future ones too. Only your own key makes and revokes keys. A key with exec or files sees the variables
and secrets that its sandbox has been given.`,
  options: {
    name: { type: "text", value: "NAME", summary: "Its name, for list and revoke", fallback: "generated" },
    sandbox: { type: "list", value: "SANDBOX", summary: "Only for this sandbox; may be repeated" },
    can: { type: "list", value: "PERMISSION,...", summary: "Permissions it has; may be repeated" },
    expires: {
      type: "text",
      value: "TIME",
      summary: "Time until it expires: 90, 2h or 1d",
      fallback: "never",
    },
    e2b: { type: "flag", summary: "Print it in the form that e2b's SDKs take" },
  },
  refuse: ({ options }) =>
    options.can.length === 0 && !options.e2b
      ? `--can is needed: one or more of ${permissions.join(", ")}`
      : undefined,
  examples: [
    "bhatti key create --sandbox dev --can exec,files --expires 1d --name agent",
    "bhatti key create --can read --name dashboard",
    "E2B_API_KEY=$(bhatti key create --e2b) E2B_API_URL=http://localhost:8080 node agent.js",
    "BHATTI_TOKEN=$(bhatti key create --sandbox dev --can exec --json | jq -r .key) bhatti exec dev -- id",
  ],
  async run({ client, options, isJson, out }) {
    const created = await client.createKey({
      body: {
        can: options.can.length === 0 ? [...e2bPermissions] : permissionsOf(options.can),
        ...(options.name !== undefined && { name: options.name }),
        ...(options.sandbox.length > 0 && { sandboxes: [...options.sandbox] }),
        ...(options.expires !== undefined && { expires_in: readDuration("--expires", options.expires) }),
      },
    })
    if (isJson) return await out.json(created)
    const whose = created.sandboxes?.map(({ name, id }) => name ?? id).join(", ") ?? "all your sandboxes"
    const end = created.expires_at === null ? "never expires" : `expires ${created.expires_at}`
    await out.result(options.e2b ? created.key.replace(/^bht_/, "e2b_") : created.key)
    await out.talk(
      `key/${created.name} for ${whose}: ${created.can.join(", ")}; ${end}. It is not shown again.`,
    )
  },
})

function permissionsOf(given: readonly string[]) {
  return given
    .flatMap((one) => one.split(","))
    .map((name) => {
      const found = permissions.find((one) => one === name.trim())
      if (found === undefined) throw new WrongUsage(`--can takes ${permissions.join(", ")}, not "${name}"`)
      return found
    })
}
