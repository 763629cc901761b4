/** `bhatti logs`. */

import { command } from "../command.ts"
import { tellingFate } from "../lost-sandbox.ts"

export const logs = command({
  args: ["sandbox"],
  optionalArgs: ["session"],
  description: `Prints the last 256 KiB of a session's terminal output, unchanged; without SESSION that of the init script. It needs no terminal, does
not disturb attached clients, and works after the session has ended, until the sandbox boots again. bhatti ps lists the sessions.`,
  examples: ["bhatti logs dev", "bhatti logs dev init | tail", "bhatti logs dev s1"],
  async run({ client, args, out }) {
    const { copyToOutput } = await import("../copy/download.ts")
    await tellingFate(args.sandbox, { client, during: "while its output was read" }, async () => {
      const params = { id: args.sandbox, session: args.session ?? "init" }
      await copyToOutput(await client.readSession({ params }), out)
    })
  },
})
