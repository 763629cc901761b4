/** `bhatti restart`. */

import { command } from "../command.ts"
import { changeEach } from "../each-name.ts"

export const restart = command({
  rest: { name: "sandbox", kind: "names" },
  description: `Asks programs to end, gives them five seconds, syncs files and boots the sandbox from its disk.
Its memory is lost. Its init script runs again, unless it was created with --on-boot off. Running reboot inside does the same;
poweroff inside leaves it stopped until the next request.

All named sandboxes are tried, one after the other.`,
  examples: ["bhatti restart dev"],
  run: (context) =>
    changeEach(
      context,
      { done: "restarted", ifSlow: (name) => `ending what runs in ${name} and booting it` },
      (name) => context.client.restartSandbox({ params: { id: name } }),
    ),
})
