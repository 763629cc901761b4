/** `bhatti stop`. */

import { command } from "../command.ts"
import { changeEach } from "../each-name.ts"

export const stop = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Keeps its memory, its running programs and its disk; the next request, or bhatti start, continues where it stopped.

All named sandboxes are tried, one after the other.`,
  examples: ["bhatti stop dev", "bhatti stop $(bhatti list -q --label team=web)"],
  run: (context) =>
    changeEach(
      context,
      { done: "stopped", ifSlow: (name) => `writing the memory of ${name} to disk` },
      (name) => context.client.stopSandbox({ params: { id: name } }),
    ),
})
