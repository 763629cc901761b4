/** `bhatti file read`. */

import type { Client } from "@bhatti/sdk/client"
import { Refusal } from "@bhatti/sdk/failure"
import { command } from "../command.ts"
import { tellingFate } from "../lost-sandbox.ts"

export const fileRead = command({
  args: ["sandbox", "path"],
  description:
    "Writes the file's bytes to standard output as they are. A relative PATH begins at /workspace.",
  examples: ["bhatti file read dev /workspace/app.js", "bhatti file read dev logs/app.log | grep error"],
  async run({ client, args, out }) {
    const { copyToOutput } = await import("../copy/download.ts")
    await tellingFate(args.sandbox, { client, during: "while the file was read" }, async () => {
      const place = { params: { id: args.sandbox }, query: { path: args.path } }
      const response = await client.readFile(place).catch(async (error: unknown) => {
        throw await withListHint(error, client, args)
      })
      await copyToOutput(response, out)
    })
  },
})

async function withListHint(
  error: unknown,
  client: Client,
  { sandbox, path }: { sandbox: string; path: string },
): Promise<unknown> {
  if (!(error instanceof Refusal) || error.code !== "invalid") return error
  const entry = await client.statFile(sandbox, path).catch(() => undefined)
  if (!entry?.is_dir) return error
  return new Refusal("invalid", error.message, { cause: error, hint: `bhatti file ls ${sandbox} ${path}` })
}
