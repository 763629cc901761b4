/** The rights of a key that may do less than its user. */

import { Permission } from "@bhatti/contract/permission"
import { z } from "zod"

export const Scope = z.strictObject({
  can: z.array(Permission),
  /** Ids of the only sandboxes that exist for the key; null: all of its user's. */
  sandboxIds: z.array(z.string()).nullable(),
})
export type Scope = z.infer<typeof Scope>

/** Returns whether the sandbox exists for that key; `undefined` is the scope of a user's own key. */
export function sees(scope: Scope | undefined, sandboxId: string): boolean {
  return scope?.sandboxIds?.includes(sandboxId) ?? true
}
