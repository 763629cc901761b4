/** A secret on the wire. */

import type { Secret } from "@bhatti/contract/secret"
import type { SecretRecord } from "../../store/secrets.ts"

export function viewSecret({ name, createdAt, updatedAt }: SecretRecord): Secret {
  return { name, created_at: createdAt, updated_at: updatedAt }
}
