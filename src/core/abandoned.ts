/** Sandboxes whose client left after they were made and before it had the answer: nobody knows of them. */

import type { Account } from "../store/users.ts"
import type { Core, ForRemoval } from "./core.ts"
import { destroySandbox } from "./destroy.ts"
import type { Sandbox } from "./sandbox.ts"

/** `signal` aborts when the client disconnects before it has the whole answer; the sandboxes are then destroyed. */
export function destroyIfAbandoned(
  core: ForRemoval & Pick<Core, "destroying" | "events">,
  account: Account,
  sandboxes: readonly Pick<Sandbox, "id" | "name">[],
  signal: AbortSignal | undefined,
): void {
  const destroy = () => {
    for (const { id, name } of sandboxes) {
      // Another client has found and used it meanwhile.
      if (core.touches.has(id)) continue
      core.log.info({ sandbox: id, name }, "its client has left before the answer: it is destroyed")
      destroySandbox(core, account, id).catch((error: unknown) =>
        core.log.warn({ sandbox: id, error }, "a sandbox that nobody knows of could not be destroyed"),
      )
    }
  }
  if (signal?.aborted) destroy()
  else signal?.addEventListener("abort", destroy, { once: true })
}
