/** Zygotes: heated machines of templates, which stand still and are forked into machines of sandboxes. */

import type { ProcessIdentity } from "../../lib/process-identity.ts"
import type { Guest } from "./guests.ts"
import type { Template } from "./templates.ts"

export type Zygote = { template: Template; process: ProcessIdentity }

/** The result of the last trial, for those who examine the host without the daemon. `build` is the QEMU's. */
export type ForkTrial = { works: boolean; reason: string | null }

export interface Zygotes {
  /** The QEMU that would be forked, for messages. */
  readonly build: string
  /**
   * Starts one, whose guest then runs. The caller runs in it what a first command needs, quiesces it, closes the
   * connection, and freezes it. A start that fails leaves nothing.
   */
  start(template: Template): Promise<{ zygote: Zygote; guest: Guest }>
  /** Stops it for good. Throws, with the reason, if it cannot be forked. */
  freeze(zygote: Zygote): Promise<void>
  /**
   * Forks a machine for trial, which ends with it. Throws, with the reason, unless it has nothing of the zygote's that
   * it must not have, and `prove` finds that it works.
   */
  try(zygote: Zygote, prove: (guest: Guest) => Promise<unknown>): Promise<void>
  isAlive(zygote: Zygote): boolean
  /** Ends it. The machines forked from it live on. */
  end(zygote: Zygote): Promise<void>
  keepTrial(trial: ForkTrial): Promise<void>
}
