/** The configuration of name servers. Tests on real machines show that dnsmasq understands it so. */

import { expect, test } from "bun:test"
import { policyFrom } from "@bhatti/contract/network"
import { hostsText, type Profile, profileOf, resolverConfig, serversText } from "./resolver.ts"

const publicPolicy = policyFrom({})
const owner = "usr_0000000a"
const denied = (...allow_hosts: string[]) =>
  profileOf(owner, { default: "deny", allow_hosts, allow_cidrs: [] })

function config(profile: Profile, options: { mayBeInternal?: boolean } = {}): string[] {
  return resolverConfig({
    profile,
    address: "10.9.0.2",
    directory: "/run/x/key",
    table: "bhatti_abcde",
    user: "dnsmasq",
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

const publicOne = profileOf(owner, publicPolicy)
const upstreams = ["203.0.113.53", "fe80::1%eth0"]
const serversOf = (profile: Profile) => serversText(profile, upstreams).split("\n").slice(0, -1)

test("a public one passes everything on, but no names that lead inside", () => {
  expect(serversOf(publicOne)).toEqual(["server=203.0.113.53", "server=fe80::1%eth0"])
  const lines = config(publicOne)
  expect(lines).toContain("stop-dns-rebind")
  expect(lines.filter((line) => line.startsWith("nftset"))).toEqual([])
  expect(config(publicOne, { mayBeInternal: true })).not.toContain("stop-dns-rebind")
})

test("whoever may ask what, no file of the host and no server for all names is in its configuration", () => {
  for (const profile of [publicOne, denied(), denied("a.example.com", "*.example.org")]) {
    const lines = config(profile)
    expect(lines).toContain("no-resolv")
    expect(lines.filter((line) => /^(server=|resolv-file|conf-)/.test(line))).toEqual([])
    if (profile !== publicOne) {
      expect(lines).toContain("local=/#/")
      expect(serversOf(profile).filter((line) => !/^server=\/[^/#]+\//.test(line))).toEqual([])
    }
  }
})

test("a denied one passes on only what is allowed", () => {
  const about = (...patterns: string[]) => [
    ...config(denied(...patterns)).filter((line) => /^(local|nftset)=\/(?!bhatti)/.test(line)),
    ...serversOf(denied(...patterns)),
  ]
  expect(about()).toEqual(["local=/#/"])
  const { hostSet } = denied("api.example.com")
  expect(about("api.example.com")).toEqual([
    "local=/#/",
    "local=/*.api.example.com/",
    `nftset=/api.example.com/4#inet#bhatti_abcde#${hostSet}`,
    "server=/api.example.com/203.0.113.53",
    "server=/api.example.com/fe80::1%eth0",
  ])
  expect(about("*.example.com").filter((line) => !line.startsWith("nftset"))).toEqual([
    "local=/#/",
    "local=/example.com/",
    "server=/*.example.com/203.0.113.53",
    "server=/*.example.com/fe80::1%eth0",
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
