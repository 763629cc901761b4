/** `bhatti file stat`. */

import { command } from "../command.ts"
import { entryName } from "../file-text.ts"
import { alignColumns } from "../output.ts"
import { bytesText, printable } from "../words.ts"

export const fileStat = command({
  args: ["sandbox", "path"],
  description: "For a link it shows the link itself.",
  examples: ["bhatti file stat dev /workspace/app.js", "bhatti file stat dev app.js --json | jq .size"],
  async run({ client, args, isJson, out }) {
    const entry = await client.statFile(args.sandbox, args.path)
    if (isJson) return await out.json(entry)
    const lines = alignColumns([
      ["name", entryName(entry)],
      ["type", entry.type],
      ["size", `${entry.size} (${bytesText(entry.size)})`],
      ["mode", entry.mode],
      ["owner", `${entry.owner}:${entry.group}`],
      ["modified", entry.mtime],
      ...Object.entries(entry.attributes ?? {}).map((pair) => pair.map(printable)),
    ])
    await out.result(lines.join("\n"))
  },
})
