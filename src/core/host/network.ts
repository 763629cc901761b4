/** The network of sandboxes. */

import type { GuestNetwork } from "@bhatti/contract/guest"
import type { NetPolicy } from "@bhatti/contract/network"

/** A sandbox as the network knows it. Sandboxes with the same `owner` can reach each other. */
export type Attachment = { id: string; slot: number; owner: string; hostname: string; policy: NetPolicy }

/**
 * The network of sandboxes. A machine's TAP device carries nothing before `linkUp`, and afterwards only what its
 * attachment permits; without an attachment it carries nothing.
 */
export interface Network {
  /** Returns those of the networks that no policy can open, because they are entirely internal. */
  closedAmong(cidrs: string[]): string[]
  identityOf(sandbox: { id: string; slot: number }): GuestNetwork
  linkUp(sandbox: { id: string; slot: number }): Promise<void>
  /** Repeat it to change the policy or name of an attached sandbox. */
  attach(attachment: Attachment): Promise<void>
  detach(id: string): Promise<void>
  /** Attaches exactly these sandboxes, whatever was attached before. */
  resync(attachments: Attachment[]): Promise<void>
}
