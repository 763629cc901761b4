/**
 * The firewall of programs that fetch images, as text for nftables: pure. Each such program has a user id of its own,
 * and may reach what a sandbox with the policy `public` may, the host's name servers, and the registries that it was
 * given. A user id without a program reaches nothing.
 */

import { internalNetworks } from "./internal.ts"

export type Fetcher = { uid: number; registries: { address: string; port: number }[] }

export type RegistryNetwork = {
  table: string
  subnet: string
  /** Internal networks that the operator has opened for sandboxes. */
  opened: string[]
  nameServers: string[]
  /** All user ids that fetch images. */
  uids: readonly number[]
}

/** Replaces everything in one transaction, so there is no moment without rules. */
export function registryRules(network: RegistryNetwork, fetchers: readonly Fetcher[]): string {
  const { table, subnet, opened, nameServers, uids } = network
  const servers = (version: 4 | 6) => nameServers.filter((one) => one.includes(":") === (version === 6))
  const elements = (list: string[]) => (list.length === 0 ? "" : `elements = { ${list.join(", ")} }`)
  const known = elements(
    fetchers.flatMap(({ uid, registries }) =>
      registries.map((one) => `${uid} . ${one.address} . ${one.port}`),
    ),
  )
  return `add table inet ${table}
delete table inet ${table}
table inet ${table} {
  set fetchers { type uid; ${elements(fetchers.map(({ uid }) => `${uid}`))}; }
  set registries { type uid . ipv4_addr . inet_service; ${known}; }
  set servers { type ipv4_addr; ${elements(servers(4))}; }
  set servers6 { type ipv6_addr; ${elements(servers(6))}; }
  set internal { type ipv4_addr; flags interval; auto-merge; ${elements(internalNetworks)}; }
  set opened { type ipv4_addr; flags interval; auto-merge; ${elements(opened)}; }
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid { ${uids.join(", ")} } goto fetch
  }
  chain fetch {
    meta skuid != @fetchers goto refuse
    ip daddr @servers meta l4proto { tcp, udp } th dport 53 accept
    ip6 daddr @servers6 meta l4proto { tcp, udp } th dport 53 accept
    meta l4proto != tcp goto refuse
    meta skuid . ip daddr . tcp dport @registries accept
    meta nfproto != ipv4 goto refuse
    fib daddr type local goto refuse
    ip daddr ${subnet} goto refuse
    ip daddr @opened accept
    ip daddr @internal goto refuse
    accept
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
}
`
}
