/** Names in Host headers. */

import { isIP } from "node:net"

/** Removes the port and the trailing dot, and lowercases; an IPv6 address keeps its brackets. */
export function hostName(host: string): string {
  return host.replace(/:\d+$/, "").replace(/\.$/, "").toLowerCase()
}

/** `name` as returned by `hostName`. */
export function isAddress(name: string): boolean {
  return isIP(name.replace(/^\[(.*)\]$/, "$1")) !== 0
}
