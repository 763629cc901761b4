/** `bhatti file mkdir`. */

import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"
import { isFileMode, modeRule } from "../file-mode.ts"
import { ownerOption } from "../file-owner.ts"
import { printable } from "../words.ts"

export const fileMkdir = command({
  args: ["sandbox"],
  rest: { name: "path", kind: "names" },
  description: "Missing parents are created too; an existing directory is not an error.",
  options: {
    mode: { type: "text", short: "m", value: "MODE", summary: "Permissions, in octal", fallback: "0755" },
    ...ownerOption,
  },
  refuse: ({ options }) => (isFileMode(options.mode) ? undefined : modeRule),
  examples: ["bhatti file mkdir dev /workspace/src/web", "bhatti file mkdir dev private --mode 0700"],
  async run({ client, args, rest, options, isJson, out, report }) {
    return await forEachName(rest, { report }, async (path) => {
      const reply = await client.makeDirectory({
        params: { id: args.sandbox },
        body: {
          path,
          ...(options.mode === undefined ? {} : { mode: options.mode }),
          ...(options.owner === undefined ? {} : { owner: options.owner }),
        },
      })
      if (isJson) await out.json(reply)
      else await out.result(`${args.sandbox}:${printable(path)} made`)
    })
  },
})
