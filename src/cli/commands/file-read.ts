/** `bhatti file read`. */

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
      const response = await client.readFile({ params: { id: args.sandbox }, query: { path: args.path } })
      await copyToOutput(response, out)
    })
  },
})
