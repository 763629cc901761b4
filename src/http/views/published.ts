/** A published port on the wire. */

import type { PublishedPort } from "@bhatti/contract/publish"
import type { Published } from "../../core/publish.ts"

export function viewPublished(published: Published): PublishedPort {
  return {
    id: published.id,
    sandbox_id: published.sandboxId,
    port: published.port,
    alias: published.alias,
    url: published.url,
    created_at: published.createdAt,
  }
}
