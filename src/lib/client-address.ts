/**
 * A client's identity: its address, or the address reported by a trusted proxy; and the key under which its limits are
 * counted.
 */

import { BlockList, isIP } from "node:net"

export class TrustedProxies {
  readonly #list = new BlockList()

  /** Takes addresses and networks in CIDR form, which the configuration has checked. */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      const [address = "", bits] = entry.split("/")
      const family = isIP(address) === 6 ? "ipv6" : "ipv4"
      if (bits === undefined) this.#list.addAddress(address, family)
      else this.#list.addSubnet(address, Number(bits), family)
    }
  }

  has(address: string): boolean {
    const version = isIP(address)
    return version !== 0 && this.#list.check(address, version === 6 ? "ipv6" : "ipv4")
  }

  /** Returns the nearest address that is not a trusted proxy's. Anybody may have forged the addresses before it. */
  clientBehind(peer: string, forwardedFor: readonly string[]): string {
    let client = peer
    const hops = forwardedFor.flatMap((value) => value.split(",")).map((hop) => hop.trim())
    while (this.has(client)) {
      const hop = plainAddress(hops.pop() ?? "")
      if (isIP(hop) === 0) break
      client = hop
    }
    return client
  }
}

/** An IPv4 address has the same form whether it came over an IPv6 socket or not. */
export function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "")
}

/** A household usually has a whole /64 of IPv6 addresses, and counts as one client. */
export function limitKey(address: string): string {
  if (isIP(address) !== 6) return address
  const [head = "", tail] = address.split("::")
  const groups = head === "" ? [] : head.split(":")
  if (tail !== undefined) {
    const after = tail === "" ? 0 : tail.split(":").length
    while (groups.length < 8 - after) groups.push("0")
  }
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`
}

export function isLoopback(address: string): boolean {
  return address === "::1" || /^127\.\d+\.\d+\.\d+$/.test(address)
}
