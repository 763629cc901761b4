/** Maps a Host header to its destination: an alias of a published port, the API, or nothing. */

import { hostName } from "../lib/host-name.ts"

export type Zone = {
  /** Aliases are the names one label below it. */
  domain: string
  /** Names of the API that may lie below the domain. */
  apiHosts: readonly string[]
}

export type Destination = { kind: "alias"; alias: string } | { kind: "api" } | { kind: "nowhere" }

/** `host` has passed the head's grammar. Hosts outside the domain go to the API, which knows its own names. */
export function destinationOf(host: string, zone: Zone): Destination {
  const name = hostName(host)
  if (zone.apiHosts.includes(name) || !name.endsWith(`.${zone.domain}`)) return { kind: "api" }
  const alias = name.slice(0, -zone.domain.length - 1)
  return alias.includes(".") || alias === "" ? { kind: "nowhere" } : { kind: "alias", alias }
}
