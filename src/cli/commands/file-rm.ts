/** `bhatti file rm`. */

import { AppError } from "@bhatti/contract/errors"
import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"
import { printable } from "../words.ts"

export const fileRm = command({
  args: ["sandbox"],
  rest: { name: "path", kind: "names" },
  options: { recursive: { type: "flag", short: "r", summary: "Remove directories and their contents" } },
  examples: ["bhatti file rm dev old.log", "bhatti file rm -r dev /workspace/node_modules"],
  async run({ client, args, rest, options, isJson, out, report }) {
    return await forEachName(rest, { report }, async (path) => {
      const reply = await removed(
        client.removeFile({
          params: { id: args.sandbox },
          query: { path, ...(options.recursive ? { recursive: "true" } : {}) },
        }),
        options,
      )
      if (isJson) await out.json(reply)
      else await out.result(`${args.sandbox}:${printable(path)} removed`)
    })
  },
})

/** Without --recursive the only conflict is a directory that is not empty. */
async function removed<Reply>(reply: Promise<Reply>, options: { recursive: boolean }): Promise<Reply> {
  try {
    return await reply
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "conflict" || options.recursive) throw error
    throw new AppError(error.code, error.message, {
      cause: error,
      hint: "to remove it with its contents: bhatti file rm -r",
    })
  }
}
