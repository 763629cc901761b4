/** Networks outside the public internet: unreachable from a sandbox unless the operator opens a part. */

import { covers, overlaps, parseNetwork, type Subnet } from "../rules/address.ts"

export const internalNetworks = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3",
]

/**
 * Returns the networks in which a policy can open nothing: wholly internal, without a part that the operator has
 * opened.
 */
export function closedAmong(cidrs: string[], hostNetwork: { subnet: string; opened: string[] }): string[] {
  const [subnet] = networks([hostNetwork.subnet])
  const [internal, opened] = [networks(internalNetworks), networks(hostNetwork.opened)]
  return cidrs.filter((cidr) => {
    const [asked] = networks([cidr])
    if (!asked) return false
    if (subnet && covers(subnet, asked)) return true
    return (
      internal.some((network) => covers(network, asked)) &&
      !opened.some((network) => overlaps(network, asked))
    )
  })
}

function networks(cidrs: string[]): Subnet[] {
  return cidrs.map(parseNetwork).filter((network) => network !== undefined)
}
