/** `bhatti repair`. */

import { command } from "../command.ts"
import { noticeWhenInterrupted } from "../left-running.ts"
import { printable, secondsText } from "../words.ts"

const words = {
  clean: "had no errors in its file system",
  repaired: "has a repaired file system",
  damaged: "has errors in its file system that could not all be put right",
} as const

export const repair = command({
  args: ["sandbox"],
  description: `For a sandbox whose file system refuses writes, as bhatti why reports. Ends its programs and boots it; e2fsck then runs inside before anything else.`,
  examples: ["bhatti repair dev"],
  async run({ client, args, isJson, out }) {
    const startMs = performance.now()
    using _interrupted = noticeWhenInterrupted(
      out,
      `${args.sandbox} is still being repaired; see: bhatti list`,
    )
    const reply = await client.repairSandbox({ params: { id: args.sandbox } })
    if (isJson) return await out.json(reply)
    const took = secondsText(performance.now() - startMs)
    await out.result(`sandbox/${args.sandbox} ${words[reply.result]}, and runs after ${took}`)
    if (reply.result !== "clean") await out.talk(reply.output.split("\n").map(printable).join("\n"))
  },
})
