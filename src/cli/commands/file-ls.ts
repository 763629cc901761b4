/** `bhatti file ls`. */

import { command } from "../command.ts"
import { entryName } from "../file-text.ts"

export const fileLs = command({
  args: ["sandbox"],
  optionalArgs: ["path"],
  description:
    "Without PATH it lists /workspace. Control characters in names are shown as \\n and the like; --json has them raw.",
  examples: ["bhatti file ls dev /workspace/", "bhatti file ls dev --json | jq -r '.[].name'"],
  async run({ client, args, isJson, out }) {
    const { entries, isTruncated } = await client.listFiles(args.sandbox, args.path ?? ".")
    if (isTruncated) await out.talk(`only the first ${entries.length} entries are shown; there are more`)
    if (isJson) return await out.json(entries)
    if (entries.length === 0) return await out.talk("the directory is empty")
    await out.table(
      ["MODE", "OWNER", "SIZE", "MODIFIED", "NAME"],
      entries.map((entry) => [
        entry.mode,
        entry.owner,
        String(entry.size),
        entry.mtime.replace(/\.\d+Z$/, "Z"),
        entryName(entry),
      ]),
    )
  },
})
