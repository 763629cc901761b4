/** `bhatti file mv`. */

import { posix } from "node:path"
import type { Client } from "@bhatti/sdk/client"
import { Refusal } from "@bhatti/sdk/failure"
import { command } from "../command.ts"
import { printable } from "../words.ts"

export const fileMv = command({
  args: ["sandbox", "from", "to"],
  description:
    "A TO that is a directory takes FROM under its name; otherwise TO is the new path. The directory above it must exist.",
  examples: ["bhatti file mv dev draft.md /workspace/docs/guide.md"],
  async run({ client, args, isJson, out }) {
    const { sandbox, from, to } = args
    const reply = await client
      .moveFile({ params: { id: sandbox }, body: { from, to } })
      .catch(async (error) => {
        throw await withDirectoryHint(error, client, args)
      })
    if (isJson) return await out.json(reply)
    await out.result(`${sandbox}:${printable(from)} is now ${printable(to)}`)
  },
})

/** If the source exists, the target's directory must be missing. */
async function withDirectoryHint(
  error: unknown,
  client: Client,
  { sandbox, from, to }: { sandbox: string; from: string; to: string },
): Promise<unknown> {
  if (!(error instanceof Refusal) || error.code !== "not_found") return error
  const entry = await client.statFile(sandbox, from).catch(() => undefined)
  if (entry === undefined) return error
  const hint = `bhatti file mkdir ${sandbox} ${posix.dirname(to)}`
  return new Refusal(error.code, error.message, { cause: error, hint })
}
