/** `bhatti file read`. */

import type { Client } from "@bhatti/sdk/client"
import { Refusal } from "@bhatti/sdk/failure"
import { command } from "../command.ts"
import { tellingFate } from "../lost-sandbox.ts"

export const fileRead = command({
  args: ["sandbox", "path"],
  description: `Writes the file's bytes to standard output as they are. A relative PATH begins at /workspace.

With --json each line is a piece of the file: {"offset":N,"encoding":"utf8","data":"…"}, or with "base64" where it is no UTF-8. An empty file has no line.`,
  options: {
    range: {
      type: "text",
      value: "FIRST-LAST",
      summary: "Only these bytes, counted from 0; 500- is all from there, -500 the last 500",
    },
  },
  refuse: ({ options: { range = "0-" } }) => {
    const [, first = "0", last = ""] = /^(\d+)-(\d*)$/.exec(range) ?? /^(-\d+)$/.exec(range) ?? [range, "NaN"]
    if (Number.isNaN(Number(first))) return "--range is FIRST-LAST, FIRST- or -COUNT"
    return last !== "" && Number(last) < Number(first) ? `--range ${range} ends before it begins` : undefined
  },
  examples: [
    "bhatti file read dev /workspace/app.js",
    "bhatti file read dev logs/app.log | grep error",
    "bhatti file read dev disk.img --range 0-511 | xxd",
    `bhatti file read dev notes.txt --json | jq -rj 'if .encoding == "utf8" then .data else (.data | @base64d) end'`,
  ],
  async run({ client, args, options, isJson, out }) {
    const { copyToOutput, received } = await import("../copy/download.ts")
    await tellingFate(args.sandbox, { client, during: "during the transfer" }, async () => {
      const place = { params: { id: args.sandbox }, query: { path: args.path } }
      const range = options.range === undefined ? undefined : `bytes=${options.range}`
      const response = await client.readFile({ ...place, range }).catch(async (error: unknown) => {
        throw await withListHint(error, client, args)
      })
      if (!isJson) return void (await copyToOutput(response, out))
      const { printJsonBytes } = await import("../json-bytes.ts")
      await printJsonBytes(received(response), out, firstByte(response))
    })
  },
})

/** The offset of a part of the file in the whole. */
function firstByte({ headers }: Response): number {
  return Number(/^bytes (\d+)-/.exec(headers.get("content-range") ?? "")?.[1] ?? 0)
}

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
