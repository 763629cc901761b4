/**
 * The firewall as text for `nft -f -`: pure. Each installation has one table (and a twin for ARP, which nftables keeps
 * in a family of its own). The table drops every packet from the installation's TAP devices that no rule accepts. A TAP
 * without a lease can reach nothing.
 *
 *   from a TAP ─► prerouting: is it the leased card and address? ─┬─► to the host: its name server, ping of the gateway
 *                                                                 └─► forward: from_guest ─► the sandbox's own chain
 *   to a TAP   ─► only replies on connections that its sandbox opened, recognised by the sandbox's mark on them, and
 *                 only from addresses its policy still permits
 */

import { limits } from "@bhatti/contract/limits"
import type { NetPolicy } from "@bhatti/contract/network"
import { internalNetworks } from "./internal.ts"

/** Distinguishes one installation's devices and rules from another's on the same host. */
export type Site = { table: string; tapPrefix: string; anchor: string }

export type HostNetwork = {
  site: Site
  subnet: string
  gateway: string
  /** Internal networks that the operator has opened. */
  opened: string[]
}

/** The rules' view of one sandbox. */
export type Lease = {
  id: string
  tap: string
  mac: string
  address: string
  owner: string
  policy: NetPolicy
  /** Address of its name server. */
  resolver: string
  /** The set that its name server fills with the addresses of permitted names. */
  hostSet: string | null
}

/**
 * Replaces everything in one transaction, so there is no moment without rules. `learned` are the addresses that
 * name servers added to their sets before.
 */
export function wholeRuleset(
  hostNetwork: HostNetwork,
  leases: Lease[],
  learned: ReadonlyMap<string, string[]> = new Map(),
): string {
  const { site } = hostNetwork
  const sets = new Set(leases.flatMap(({ hostSet }) => (hostSet === null ? [] : [hostSet])))
  return [
    noRuleset(site),
    baseRules(hostNetwork),
    ...leases.map((lease) => addLease(site, lease)),
    ...[...learned]
      .filter(([name, addresses]) => sets.has(name) && addresses.length > 0)
      .map(([name, addresses]) => `add element inet ${site.table} ${name} { ${addresses.join(", ")} }`),
    "",
  ].join("\n")
}

/** Removes everything of ours, if there is anything. */
export function noRuleset({ table }: Site): string {
  return ["inet", "arp"]
    .map((family) => `add table ${family} ${table}\ndelete table ${family} ${table}`)
    .join("\n")
}

function baseRules({ site, subnet, gateway, opened }: HostNetwork): string {
  const ours = `"${site.tapPrefix}*"`
  const elements = (list: string[]) => (list.length === 0 ? "" : `elements = { ${list.join(", ")} }`)
  return `table inet ${site.table} {
  set leases { type ifname . ether_addr . ipv4_addr; }
  map flows { type ifname . mark : verdict; }
  set resolver_of { type ifname . ipv4_addr; }
  map resolvers { type ifname : ipv4_addr; }
  map sandboxes { type ifname : verdict; }
  set connections { type ipv4_addr; size 65536; flags dynamic; }
  set internal { type ipv4_addr; flags interval; auto-merge; ${elements(internalNetworks)}; }
  set opened { type ipv4_addr; flags interval; auto-merge; ${elements(opened)}; }

  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname != ${ours} return
    iifname . ether saddr . ip saddr @leases accept
    drop
  }
  chain names {
    type nat hook prerouting priority dstnat; policy accept;
    iifname ${ours} ip daddr ${gateway} meta l4proto { tcp, udp } th dport 53 dnat ip to iifname map @resolvers
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname ${ours} goto to_host
  }
  chain to_host {
    meta nfproto != ipv4 drop
    ct state new add @connections { ip saddr ct count over ${limits.connectionsPerSandboxMax} } drop
    iifname . ip daddr @resolver_of meta l4proto { tcp, udp } th dport 53 accept
    ip daddr ${gateway} icmp type echo-request accept
    goto refuse
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname != ${ours} return
    ct state established,related accept
    drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname ${ours} goto from_guest
    oifname != ${ours} return
    ct state established,related oifname . ct mark vmap @flows
    drop
  }
  chain answers_public {
    jump answers_internal
    accept
  }
  chain answers_internal {
    ct reply ip saddr ${subnet} drop
    ct reply ip saddr @opened return
    ct reply ip saddr @internal drop
  }
  chain from_guest {
    meta nfproto != ipv4 drop
    ct state invalid drop
    ct state new add @connections { ip saddr ct count over ${limits.connectionsPerSandboxMax} } drop
    tcp flags syn tcp option maxseg size set rt mtu
    iifname vmap @sandboxes
    goto refuse
  }
  chain internal_only {
    ip daddr ${subnet} goto refuse
    ip daddr @opened return
    ip daddr @internal goto refuse
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    ip daddr != 224.0.0.0/3 reject with icmpx admin-prohibited
    drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname ${ours} oifname != ${ours} masquerade
  }
}
table arp ${site.table} {
  set leases { type ifname . ether_addr . ipv4_addr; }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname != ${ours} return
    arp operation request arp daddr ip ${gateway} iifname . arp saddr ether . arp saddr ip @leases accept
    drop
  }
}`
}

export function addLease({ table }: Site, lease: Lease): string {
  const { tap, mac, address } = lease
  const set = `add element inet ${table}`
  return [
    `add set inet ${table} ${membersOf(lease)} { type ipv4_addr; }`,
    ...addHostSet(table, lease),
    `add chain inet ${table} ${chainOf(lease)}`,
    ...policyRules(table, lease),
    ...addAnswers(table, lease),
    `${set} ${membersOf(lease)} { ${address} }`,
    ...addResolver(table, lease),
    `${set} sandboxes { "${tap}" : jump ${chainOf(lease)} }`,
    `${set} leases { "${tap}" . ${mac} . ${address} }`,
    `add element arp ${table} leases { "${tap}" . ${mac} . ${address} }`,
    "",
  ].join("\n")
}

/** `others` are the sandboxes that stay; rules that only this one needed are removed with it. */
export function removeLease({ table }: Site, lease: Lease, others: Lease[]): string {
  const { tap, mac, address } = lease
  const set = `delete element inet ${table}`
  return [
    `${set} leases { "${tap}" . ${mac} . ${address} }`,
    `delete element arp ${table} leases { "${tap}" . ${mac} . ${address} }`,
    `${set} sandboxes { "${tap}" : jump ${chainOf(lease)} }`,
    ...removeResolver(table, lease),
    ...removeAnswers(table, lease),
    `${set} ${membersOf(lease)} { ${address} }`,
    `flush chain inet ${table} ${chainOf(lease)}`,
    `delete chain inet ${table} ${chainOf(lease)}`,
    ...removeHostSet(table, lease, others),
    ...(others.some(({ owner }) => owner === lease.owner)
      ? []
      : [`delete set inet ${table} ${membersOf(lease)}`]),
    "",
  ].join("\n")
}

/**
 * Gives a running sandbox another policy. Open connections that it forbids end at their next packet, from either
 * side.
 */
export function changePolicy({ table }: Site, before: Lease, after: Lease, others: Lease[]): string {
  return [
    ...addHostSet(table, after),
    `flush chain inet ${table} ${chainOf(after)}`,
    ...policyRules(table, after),
    ...removeAnswers(table, before),
    ...addAnswers(table, after),
    ...(before.resolver === after.resolver
      ? []
      : [...removeResolver(table, before), ...addResolver(table, after)]),
    ...(before.hostSet === after.hostSet ? [] : removeHostSet(table, before, others)),
    "",
  ].join("\n")
}

function policyRules(table: string, lease: Lease): string[] {
  const rule = (text: string) => `add rule inet ${table} ${chainOf(lease)} ${text}`
  const pass = `ct mark set ${markOf(lease)} accept`
  const { policy, hostSet } = lease
  const between = [rule(`ip daddr @${membersOf(lease)} accept`), rule("jump internal_only")]
  if (policy.default === "public") return [...between, rule(pass)]
  return [
    ...between,
    ...(hostSet === null ? [] : [rule(`ip daddr @${hostSet} ${pass}`)]),
    ...policy.allow_cidrs.map((cidr) => rule(`ip daddr ${cidr} ${pass}`)),
    rule("goto refuse"),
  ]
}

/**
 * Incoming packets are judged by the address the sandbox contacted, not by the packet's source: an error on the way
 * comes from another host and belongs to the same connection.
 */
function addAnswers(table: string, lease: Lease): string[] {
  const { tap, policy, hostSet } = lease
  const element = `add element inet ${table} flows { "${tap}" . ${markOf(lease)} : goto ${answersOf(lease)} }`
  if (policy.default === "public") return [element]
  const rule = (text: string) => `add rule inet ${table} ${answersOf(lease)} ${text}`
  return [
    `add chain inet ${table} ${answersOf(lease)}`,
    rule("jump answers_internal"),
    ...[...(hostSet === null ? [] : [`@${hostSet}`]), ...policy.allow_cidrs].map((asked) =>
      rule(`ct reply ip saddr ${asked} accept`),
    ),
    rule("drop"),
    element,
  ]
}

function removeAnswers(table: string, lease: Lease): string[] {
  const chain = answersOf(lease)
  const element = `delete element inet ${table} flows { "${lease.tap}" . ${markOf(lease)} : goto ${chain} }`
  if (lease.policy.default === "public") return [element]
  return [element, `flush chain inet ${table} ${chain}`, `delete chain inet ${table} ${chain}`]
}

function addHostSet(table: string, { hostSet }: Lease): string[] {
  return hostSet === null ? [] : [`add set inet ${table} ${hostSet} { type ipv4_addr; size 65536; }`]
}

function removeHostSet(table: string, { hostSet }: Lease, others: Lease[]): string[] {
  const isOrphan = hostSet !== null && !others.some((other) => other.hostSet === hostSet)
  return isOrphan ? [`delete set inet ${table} ${hostSet}`] : []
}

function addResolver(table: string, { tap, resolver }: Lease): string[] {
  return [
    `add element inet ${table} resolvers { "${tap}" : ${resolver} }`,
    `add element inet ${table} resolver_of { "${tap}" . ${resolver} }`,
  ]
}

function removeResolver(table: string, { tap, resolver }: Lease): string[] {
  return [
    `delete element inet ${table} resolvers { "${tap}" : ${resolver} }`,
    `delete element inet ${table} resolver_of { "${tap}" . ${resolver} }`,
  ]
}

function chainOf({ id }: Lease): string {
  return `of_${id}`
}

/** Sandboxes that may reach the whole internet share one chain. */
function answersOf({ id, policy }: Lease): string {
  return policy.default === "public" ? "answers_public" : `to_${id}`
}

function membersOf({ owner }: Lease): string {
  return `of_${owner}`
}

/**
 * The mark on the sandbox's connections, so that replies to a former holder of its address do not reach it. Never
 * 0.
 */
function markOf({ id }: Lease): string {
  return `0x${id.slice("sb_".length, "sb_".length + 7)}1`
}
