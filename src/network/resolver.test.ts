/** What name servers are told. That dnsmasq understands it so is shown on real machines. */

import { expect, test } from "bun:test"
import { policyFrom } from "../contract/network.ts"
import { hostsText, type Profile, profileOf, resolverConfig } from "./resolver.ts"

const publicPolicy = policyFrom({})
const owner = "usr_0000000a"
const denied = (...allow_hosts: string[]) =>
  profileOf(owner, { default: "deny", allow_hosts, allow_cidrs: [] })

function config(profile: Profile, options: { upstreams?: string[]; mayBeInternal?: boolean } = {}): string[] {
  return resolverConfig({
    profile,
    address: "10.9.0.2",
    directory: "/run/x/key",
    table: "bhatti_abcde",
    user: "dnsmasq",
    upstreams: options.upstreams ?? ["203.0.113.53"],
    mayBeInternal: options.mayBeInternal ?? false,
  }).split("\n")
}

test("sandboxes share a name server exactly when they have one owner and may ask the same", () => {
  expect(profileOf(owner, publicPolicy).key).toBe(owner)
  expect(profileOf(owner, publicPolicy).key).not.toBe(profileOf("usr_0000000b", publicPolicy).key)
  expect(denied("a.example.com", "b.example.com")).toEqual(denied("b.example.com", "a.example.com"))
  expect(denied("a.example.com").key).not.toBe(denied("b.example.com").key)
  expect(denied().hostSet).toBeNull()
})

test("a public one passes everything on, but no names that lead inside", () => {
  const lines = config(profileOf(owner, publicPolicy))
  expect(lines).toContain("server=203.0.113.53")
  expect(lines).toContain("stop-dns-rebind")
  expect(lines.filter((line) => line.startsWith("nftset"))).toEqual([])
  expect(config(profileOf(owner, publicPolicy), { upstreams: [] })).toContain("resolv-file=/etc/resolv.conf")
  expect(config(profileOf(owner, publicPolicy), { mayBeInternal: true })).not.toContain("stop-dns-rebind")
})

test("a denied one passes on only what is allowed", () => {
  const about = (...patterns: string[]) =>
    config(denied(...patterns)).filter((line) => /^(server|local|nftset)=\/(?!bhatti)/.test(line))
  expect(about()).toEqual(["local=/#/"])
  const { hostSet } = denied("api.example.com")
  expect(about("api.example.com")).toEqual([
    "local=/#/",
    "server=/api.example.com/203.0.113.53",
    "local=/*.api.example.com/",
    `nftset=/api.example.com/4#inet#bhatti_abcde#${hostSet}`,
  ])
  expect(about("*.example.com").slice(1, 3)).toEqual([
    "local=/example.com/",
    "server=/*.example.com/203.0.113.53",
  ])
  // A name below a pattern, named again itself, closes nothing of what the pattern has opened.
  expect(about("*.example.com", "a.example.com").filter((line) => line.startsWith("local"))).toEqual([
    "local=/#/",
    "local=/example.com/",
  ])
})

test("siblings have their names, alone and with the domain", () => {
  expect(hostsText([{ address: "10.9.64.1", hostname: "web" }])).toBe("10.9.64.1\tweb web.bhatti\n")
})
