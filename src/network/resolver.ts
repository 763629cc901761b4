/**
 * What a name server for sandboxes is told, as dnsmasq's configuration: pure. One serves all sandboxes of an owner that
 * may ask the same: all of the internet's names, or only those that their policy permits.
 */

import type { NetPolicy } from "../contract/network.ts"

/** Names of siblings end in this, or in nothing. */
const siblingDomain = "bhatti"

/** Which sandboxes share a name server. `hostSet` is the nftables set that it fills, if it has to. */
export type Profile = { key: string; owner: string; allowHosts: string[] | "all"; hostSet: string | null }

export function profileOf(owner: string, policy: NetPolicy): Profile {
  if (policy.default === "public") return { key: owner, owner, allowHosts: "all", hostSet: null }
  const allowHosts = [...policy.allow_hosts].sort()
  const digest = new Bun.CryptoHasher("sha256").update(allowHosts.join("\n")).digest("hex").slice(0, 12)
  const key = `${owner}_${digest}`
  return { key, owner, allowHosts, hostSet: allowHosts.length === 0 ? null : `names_${key}` }
}

export type Sibling = { address: string; hostname: string }

export function hostsText(siblings: Sibling[]): string {
  return siblings
    .map(({ address, hostname }) => `${address}\t${hostname} ${hostname}.${siblingDomain}\n`)
    .join("")
}

export function resolverConfig(options: {
  profile: Profile
  address: string
  directory: string
  table: string
  user: string
  /** Empty: those of the host. */
  upstreams: string[]
  /** Whether names may lead to internal addresses. The packets are judged by the firewall in any case. */
  mayBeInternal: boolean
}): string {
  const { profile, directory } = options
  return [
    "port=53",
    `listen-address=${options.address}`,
    "bind-interfaces",
    `user=${options.user}`,
    `pid-file=${directory}/pid`,
    "no-hosts",
    `addn-hosts=${directory}/hosts`,
    ...(options.upstreams.length > 0 ? ["no-resolv"] : ["resolv-file=/etc/resolv.conf"]),
    `local=/${siblingDomain}/`,
    "domain-needed",
    "bogus-priv",
    ...(options.mayBeInternal ? [] : ["stop-dns-rebind"]),
    // Sandboxes have no IPv6.
    "filter-AAAA",
    ...(profile.allowHosts === "all"
      ? ["cache-size=1000", ...options.upstreams.map((server) => `server=${server}`)]
      : allowedNames(profile.allowHosts, profile.hostSet, options)),
    "",
  ].join("\n")
}

/** Everything else is not passed on: a name is a way out too. Nothing is cached, since only fresh answers fill the set. */
function allowedNames(
  patterns: string[],
  hostSet: string | null,
  { upstreams, table }: { upstreams: string[]; table: string },
): string[] {
  const servers = upstreams.length > 0 ? upstreams : ["#"]
  const lines = ["cache-size=0", "local=/#/"]
  const domains = new Set(patterns.map((pattern) => pattern.replace(/^\*\./, "")))
  for (const domain of domains) {
    for (const scope of [domain, `*.${domain}`]) {
      if (!patterns.some((pattern) => covers(pattern, scope))) lines.push(`local=/${scope}/`)
      else lines.push(...servers.map((server) => `server=/${scope}/${server}`))
    }
    lines.push(`nftset=/${domain}/4#inet#${table}#${hostSet}`)
  }
  return lines
}

/** Whether a pattern permits a name, or all names below one. */
function covers(pattern: string, scope: string): boolean {
  if (!pattern.startsWith("*.")) return pattern === scope
  return pattern === scope || scope.replace(/^\*\./, "").endsWith(pattern.slice(1))
}
