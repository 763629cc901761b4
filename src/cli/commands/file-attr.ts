/** `bhatti file attr`. */

import type { FileEntry } from "@bhatti/contract/file"
import { command } from "../command.ts"
import { alignColumns } from "../output.ts"
import { printable } from "../words.ts"

export const fileAttr = command({
  args: ["sandbox", "path"],
  description: `Prints the extended attributes of a file, those that users may set: user.NAME. --set and --remove change them first, and may be
repeated. A value that is no UTF-8 text is written base64:…, in both directions. On a link, --set and --remove change the target.

Archives hold attributes, such as that of bhatti cp of a directory to -; bhatti cp to and from local files leaves them out.`,
  options: {
    set: { type: "list", value: "NAME=VALUE", summary: "Set an attribute, such as user.mime=text/plain" },
    remove: { type: "list", value: "NAME", summary: "Remove an attribute" },
  },
  refuse: ({ options }) => {
    const isSetWrong = options.set.some((pair) => !/^user\.[^=]+=/.test(pair))
    const isRemoveWrong = options.remove.some((name) => !/^user\.[^=]+$/.test(name))
    return isSetWrong || isRemoveWrong ? "an attribute is user.NAME; --set takes user.NAME=VALUE" : undefined
  },
  examples: [
    "bhatti file attr dev report.pdf",
    "bhatti file attr dev report.pdf --set user.mime=application/pdf --set user.page=12",
    "bhatti file attr dev report.pdf --remove user.page --json",
  ],
  async run({ client, args, options, isJson, out }) {
    const { sandbox, path } = args
    const set = Object.fromEntries(
      options.set.map((pair): [string, string] => [
        pair.slice(0, pair.indexOf("=")),
        pair.slice(pair.indexOf("=") + 1),
      ]),
    )
    const isChange = options.set.length + options.remove.length > 0
    const { attributes = {} }: FileEntry = isChange
      ? await client.setAttributes({ params: { id: sandbox }, body: { path, set, remove: options.remove } })
      : await client.statFile(sandbox, path)
    if (isJson) return await out.json(attributes)
    const lines = Object.entries(attributes).sort(([one], [other]) => (one < other ? -1 : 1))
    if (lines.length === 0) return await out.talk("the file has no attributes")
    await out.result(alignColumns(lines.map((pair) => pair.map(printable))).join("\n"))
  },
})
