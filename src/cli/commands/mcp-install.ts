/** `bhatti mcp install`. */

import { resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { findCaller } from "../../lib/caller.ts"
import { hostCommand } from "../command.ts"
import { editedFile, entryText, fileOf, isMcpClient, mcpClients, type ServerEntry } from "../mcp-clients.ts"
import type { Settings } from "../settings.ts"
import { WrongUsage } from "../wrong-usage.ts"

const names = Object.keys(mcpClients)

export const mcpInstall = hostCommand({
  args: ["client"],
  description: `Adds an entry that starts bhatti mcp to the client's own configuration file; everything else in it is kept. CLIENT is one of
${names.join(", ")}.

The entry has no key: bhatti mcp reads the one that bhatti setup has saved. For an agent that may do less, make a key for it (bhatti key create), save it
in a file of its own (BHATTI_CONFIG=FILE bhatti setup), and install with BHATTI_CONFIG set; the entry then names that file. Start the client again afterwards.`,
  options: {
    name: { type: "text", value: "NAME", summary: "Name of the entry", fallback: "bhatti" },
    print: { type: "flag", summary: "Print the entry and change nothing" },
  },
  examples: [
    "bhatti mcp install claude-code",
    "bhatti mcp install vscode --print",
    "BHATTI_CONFIG=~/.bhatti/agent.yaml bhatti mcp install cursor --name sandboxes",
  ],
  refuse: ({ options }) =>
    options.name !== undefined && !/^[a-zA-Z0-9_-]{1,64}$/.test(options.name)
      ? "--name has letters, digits, underscores or hyphens"
      : undefined,
  async run({ args, options, settings, isJson, out }) {
    const { client } = args
    if (!isMcpClient(client))
      throw new WrongUsage(`unknown client "${client}"`, { hint: `it is one of ${names.join(", ")}` })
    const { name = "bhatti" } = options
    const entry = ownEntry(process.env.BHATTI_CONFIG)
    const caller = findCaller(process.env)
    const file = fileOf(client, caller.home)
    if (options.print) {
      if (isJson) return await out.json({ client, file, name, entry })
      await out.talk(`for ${file}:`)
      return await out.result(entryText(client, name, entry).trimEnd())
    }
    checkSaved(await settings())
    const text = await editedFile(client, file, name, entry)
    if (text !== undefined) {
      const { writeSafely } = await import("../client-config.ts")
      await writeSafely(file, text, caller.owner)
    }
    if (isJson) return await out.json({ client, file, name, entry, changed: text !== undefined })
    if (text === undefined) return await out.result(`${file} has it already`)
    await out.result(`added ${name} to ${file}`)
    await out.hint(`  start ${client} again; then ask it to create a sandbox`)
  },
})

/** Clients start it without the user's PATH and variables. */
function ownEntry(configFile: string | undefined): ServerEntry {
  const isCompiled = Bun.main.startsWith("/$bunfs/")
  return {
    command: process.execPath,
    args: [...(isCompiled ? [] : [Bun.main]), "mcp"],
    ...(configFile && { env: { BHATTI_CONFIG: resolve(configFile) } }),
  }
}

/** A key of this shell alone would not reach the server. */
function checkSaved({ tokenSource }: Settings): void {
  if (tokenSource !== undefined && tokenSource !== "--token" && tokenSource !== "BHATTI_TOKEN") return
  const words = tokenSource === undefined ? "no API key is saved" : `the key is only in ${tokenSource}`
  throw new AppError("invalid", `${words}; the client could not use it`, {
    hint: "save it first, with bhatti setup",
  })
}
