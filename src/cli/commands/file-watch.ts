/** `bhatti file watch`. */

import type { FileEvent } from "@bhatti/contract/file"
import { command } from "../command.ts"
import { printable } from "../words.ts"

export const fileWatch = command({
  args: ["sandbox"],
  optionalArgs: ["path"],
  description: `Prints a line for each change in the directory PATH, by default /workspace, until you press Ctrl-C: create, write, remove,
rename and chmod (mode, owner, times or attributes). Paths are relative to PATH; a directory ends in /.

It does not keep the sandbox awake: when that is paused or stopped, the watch goes on with its next use. A line "lost" says that
changes are missing here and why, for example because the sandbox was booted; list the directory again then.`,
  options: {
    recursive: { type: "flag", short: "r", summary: "Watch the directories below it too" },
  },
  examples: [
    "bhatti file watch dev -r",
    "bhatti file watch dev /var/log",
    "bhatti file watch dev src -r --json | jq -r 'select(.type == \"write\").path'",
  ],
  async run({ client, args, options, isJson, out }) {
    const directory = { path: args.path ?? ".", recursive: options.recursive }
    for await (const event of client.followFiles(args.sandbox, directory)) {
      if (event.type === "watching")
        await out.talk(`watching ${args.sandbox}:${printable(args.path ?? "/workspace")}`)
      else await out.result(isJson ? JSON.stringify(event) : changeLine(event))
    }
    await out.talk("the directory or the sandbox is gone")
  },
})

function changeLine({ type, path, to, is_dir: isDirectory, reason }: FileEvent): string {
  const slash = isDirectory && path !== "." ? "/" : ""
  const words = `${type.padEnd(6)}  ${printable(path)}${slash}`
  if (type === "lost") return `${words}: ${printable(reason ?? "changes are missing")}`
  return to === null ? words : `${words} -> ${printable(to)}${slash}`
}
