/** Names in Host headers. */

import { isIP } from "node:net"

/** Without port and the root's dot, in lower case; an IPv6 address keeps its brackets. */
export function hostName(host: string): string {
  return host.replace(/:\d+$/, "").replace(/\.$/, "").toLowerCase()
}

/** `name` as `hostName` gives it. */
export function isAddress(name: string): boolean {
  return isIP(name.replace(/^\[(.*)\]$/, "$1")) !== 0
}
