/** `bhatti start`. */

import { command } from "../command.ts"
import { changeEach } from "../each-name.ts"

export const start = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Rarely needed: any command that uses a sandbox starts it. After repeated failures a sandbox is not retried for a while, longer each time; bhatti why shows for how long.

All named sandboxes are tried, one after the other.`,
  options: {
    force: { type: "flag", summary: "Start now, without waiting after earlier failures" },
  },
  examples: ["bhatti start dev", "bhatti start dev worker", "bhatti start dev --force"],
  run: (context) =>
    changeEach(context, { done: "started" }, (name) =>
      context.client.startSandbox({ params: { id: name }, body: { force: context.options.force } }),
    ),
})
