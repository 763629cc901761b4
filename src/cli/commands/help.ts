/** `bhatti help`. */

import { hostCommand } from "../command.ts"
import { entryOf, isGroup, unknownCommand } from "../find-command.ts"
import { commandHelp, groupHelp } from "../help.ts"

export const help = hostCommand({
  rest: { name: "command", kind: "names" },
  examples: ["bhatti help exec", "bhatti help user create"],
  async run({ rest, table, out }) {
    const name = rest.join(" ")
    const entry = entryOf(table, name)
    if (entry !== undefined) return await out.result(commandHelp(entry, await entry.load()))
    if (isGroup(table, name)) return await out.result(groupHelp(table.shown, name))
    throw unknownCommand(table, name)
  },
})
