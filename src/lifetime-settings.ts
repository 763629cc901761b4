/** The operator's settings of lifetimes, as `core` takes them. */

import type { Config } from "@bhatti/contract/config"

export function lifetimesOf(config: Config) {
  const users = Object.entries(config.user_lifetimes).map(([name, own]) => {
    const { default_ttl: ttl, default_on_ttl: onTtl, stopped_retention: retention } = own
    const defaults = {
      ...(ttl !== undefined && { ttlMs: ttl * 1000 }),
      ...(onTtl !== undefined && { onTtl }),
      ...(retention !== undefined && { stoppedRetentionMs: retention * 1000 }),
    }
    return [name, defaults] as const
  })
  return {
    ttlMs: config.default_ttl * 1000,
    onTtl: config.default_on_ttl,
    stoppedRetentionMs: config.stopped_retention * 1000,
    users: Object.fromEntries(users),
    warningMs: config.ttl_warning * 1000,
    graceMs: config.ttl_grace * 1000,
  }
}
