/** Keys on the wire. */

import { SandboxId } from "@bhatti/contract/ids"
import type { ApiKey } from "@bhatti/contract/key"
import type * as core from "../../core/api-keys.ts"

export function viewKey({ id, name, scope, sandboxes, createdAt, expiresAt }: core.ApiKey): ApiKey {
  return {
    id,
    name,
    can: scope.can,
    sandboxes: sandboxes?.map((one) => ({ ...one, id: SandboxId.parse(one.id) })) ?? null,
    created_at: createdAt,
    expires_at: expiresAt,
  }
}
