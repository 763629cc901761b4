/**
 * The dnsmasq configuration of a name server for sandboxes: pure. One name server serves all sandboxes of an owner
 * that may look up the same names: all names of the internet, or only those their policy permits.
 */

import type { NetPolicy } from "@bhatti/contract/network"

/** Domain of sibling sandboxes' names, which also work without it. */
const siblingDomain = "bhatti"

/** Determines which sandboxes share a name server. `hostSet` is the nftables set that it fills, if any. */
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
  /** True if names may resolve to internal addresses. The firewall judges the packets in any case. */
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
    // A host file, or a server for all names, would override the local names below.
    "no-resolv",
    `servers-file=${directory}/servers`,
    `local=/${siblingDomain}/`,
    "domain-needed",
    "bogus-priv",
    ...(options.mayBeInternal ? [] : ["stop-dns-rebind"]),
    // Sandboxes have no IPv6.
    "filter-AAAA",
    ...(profile.allowHosts === "all"
      ? ["cache-size=1000"]
      : allowedNames(profile.allowHosts, profile.hostSet, options.table)),
    "",
  ].join("\n")
}

/**
 * Queries for all other names are not forwarded: a name can leak data too. Answers are not cached, since only fresh
 * answers fill the set.
 */
function allowedNames(patterns: string[], hostSet: string | null, table: string): string[] {
  return [
    "cache-size=0",
    "local=/#/",
    ...scopesOf(patterns)
      .filter(({ isPermitted }) => !isPermitted)
      .map(({ scope }) => `local=/${scope}/`),
    ...domainsOf(patterns).map((domain) => `nftset=/${domain}/4#inet#${table}#${hostSet}`),
  ]
}

/**
 * The upstream servers for permitted queries, in a file that a running name server reloads. Without a name server
 * of the host no query is forwarded.
 */
export function serversText(profile: Profile, upstreams: string[]): string {
  const scopes =
    profile.allowHosts === "all"
      ? [""]
      : scopesOf(profile.allowHosts)
          .filter(({ isPermitted }) => isPermitted)
          .map(({ scope }) => `/${scope}/`)
  return scopes.flatMap((scope) => upstreams.map((server) => `server=${scope}${server}\n`)).join("")
}

/** Every domain that a pattern covers, as the name itself and as all names below it. */
function scopesOf(patterns: string[]): { scope: string; isPermitted: boolean }[] {
  return domainsOf(patterns)
    .flatMap((domain) => [domain, `*.${domain}`])
    .map((scope) => ({ scope, isPermitted: patterns.some((pattern) => covers(pattern, scope)) }))
}

function domainsOf(patterns: string[]): string[] {
  return [...new Set(patterns.map((pattern) => pattern.replace(/^\*\./, "")))]
}

/** Tells whether a pattern permits a name, or all names below one. */
function covers(pattern: string, scope: string): boolean {
  if (!pattern.startsWith("*.")) return pattern === scope
  return pattern === scope || scope.replace(/^\*\./, "").endsWith(pattern.slice(1))
}
