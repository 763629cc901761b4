/**
 * The rules as text, and as the kernel understands them in a network namespace of the test's own: made step by step
 * they are the same as made at once.
 */

import { describe, expect, test } from "bun:test"
import {
  addLease,
  changePolicy,
  type HostNetwork,
  type Lease,
  noRuleset,
  removeLease,
  wholeRuleset,
} from "./ruleset.ts"

const site = { table: "bhatti_abcde", tapPrefix: "bhabcde", anchor: "bhgwabcde" }
const hostNetwork: HostNetwork = {
  site,
  subnet: "10.9.0.0/16",
  gateway: "10.9.0.1",
  opened: ["172.31.0.0/24"],
}

function lease(
  number: number,
  owner: string,
  policy: Partial<Lease["policy"]> = {},
  hostSet: string | null = null,
): Lease {
  const id = `sb_${String(number).padStart(16, "0")}`
  return {
    id,
    tap: `bhabcde${String(number).padStart(8, "0")}`,
    mac: `02:00:00:00:00:${String(number).padStart(2, "0")}`,
    address: `10.9.64.${number}`,
    owner,
    policy: { default: "public", allow_hosts: [], allow_cidrs: [], ...policy },
    resolver: "10.9.0.2",
    hostSet,
  }
}

const one = lease(1, "usr_0000000a")
const two = lease(2, "usr_0000000a", { default: "deny", allow_cidrs: ["203.0.113.0/24"] })
const three = lease(3, "usr_0000000b", { default: "deny", allow_hosts: ["example.com"] }, "names_x")

/** The rules of one sandbox's own chain: of what it sends, or of the answers `to` it. */
function chainOf(text: string, { id }: Lease, direction: "of" | "to" = "of"): string[] {
  const start = `add rule inet bhatti_abcde ${direction}_${id} `
  return text
    .split("\n")
    .filter((line) => line.startsWith(start))
    .map((line) => line.slice(start.length))
}

describe("a sandbox's chain", () => {
  test("public: siblings, nothing internal, all else", () => {
    expect(chainOf(addLease(site, one), one)).toEqual([
      "ip daddr @of_usr_0000000a accept",
      "jump internal_only",
      "ct mark set 0x00000001 accept",
    ])
  })

  test("deny: what is allowed stands behind what is never allowed", () => {
    expect(chainOf(addLease(site, two), two)).toEqual([
      "ip daddr @of_usr_0000000a accept",
      "jump internal_only",
      "ip daddr 203.0.113.0/24 ct mark set 0x00000001 accept",
      "goto refuse",
    ])
    expect(chainOf(addLease(site, three), three)).toEqual([
      "ip daddr @of_usr_0000000b accept",
      "jump internal_only",
      "ip daddr @names_x ct mark set 0x00000001 accept",
      "goto refuse",
    ])
  })
})

describe("answers to a sandbox", () => {
  test("public: all share one chain", () => {
    expect(addLease(site, one)).toContain('flows { "bhabcde00000001" . 0x00000001 : goto answers_public }')
    expect(chainOf(addLease(site, one), one, "to")).toEqual([])
  })

  test("deny: come in from where it may ask now, and from nowhere internal", () => {
    expect(chainOf(addLease(site, two), two, "to")).toEqual([
      "jump answers_internal",
      "ct reply ip saddr 203.0.113.0/24 accept",
      "drop",
    ])
    expect(chainOf(changePolicy(site, one, { ...three, id: one.id }, [two]), one, "to")).toEqual([
      "jump answers_internal",
      "ct reply ip saddr @names_x accept",
      "drop",
    ])
  })
})

test("whatever stands is replaced in one go, and each device's name is whole", () => {
  const text = wholeRuleset(hostNetwork, [one], new Map([["names_gone", ["203.0.113.1"]]]))
  expect(text.startsWith(noRuleset(site))).toBe(true)
  expect(text).not.toContain("names_gone")
  expect(text).toContain('iifname "bhabcde*"')
  expect(text).not.toMatch(/flush ruleset/)
})

/** In a network namespace of its own, with nothing in it. Also without root, where that may have such. */
function inNamespace(script: string): string {
  const rights = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"]
  const child = Bun.spawnSync(["unshare", ...rights, "--net", "sh", "-ec", script], {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
  })
  if (child.exitCode !== 0) throw new Error(child.stderr.toString())
  return child.stdout.toString()
}

const hasNamespaces = Bun.spawnSync(["unshare", "--user", "--map-root-user", "--net", "true"]).exitCode === 0

/** Returns nft's listing after these texts, in an order that does not depend on theirs. */
function loaded(...texts: string[]): string[] {
  const scripts = texts.map((text) => `nft -f - <<'END'\n${text}\nEND`)
  return inNamespace([...scripts, "nft list ruleset"].join("\n"))
    .split(/\n(?=\t(?:chain|set|map) |table )/)
    .map((block) =>
      block.replace(/elements = \{([^}]*)\}/, (_, list: string) =>
        list
          .split(",")
          .map((each) => each.trim())
          .sort()
          .join(", "),
      ),
    )
    .map((block) => block.replace(/[\s}]+$/, ""))
    .sort()
}

describe.skipIf(!hasNamespaces)("as the kernel has them", () => {
  test("all at once is the same as one after the other", () => {
    const steps = loaded(
      wholeRuleset(hostNetwork, []),
      addLease(site, one),
      addLease(site, two),
      addLease(site, three),
    )
    expect(steps).toEqual(loaded(wholeRuleset(hostNetwork, [one, two, three])))
  })

  test("taking back is as if it had never been", () => {
    const steps = loaded(
      wholeRuleset(hostNetwork, []),
      addLease(site, one),
      addLease(site, two),
      addLease(site, three),
      removeLease(site, two, [one, three]),
      removeLease(site, three, [one]),
    )
    expect(steps).toEqual(loaded(wholeRuleset(hostNetwork, [one])))
    expect(loaded(wholeRuleset(hostNetwork, [one]), removeLease(site, one, []))).toEqual(
      loaded(wholeRuleset(hostNetwork, [])),
    )
  })

  test("another policy is as if it had always been", () => {
    const after: Lease = {
      ...three,
      policy: { ...one.policy, default: "public" },
      hostSet: null,
      resolver: "10.9.0.3",
    }
    const steps = loaded(wholeRuleset(hostNetwork, [one, three]), changePolicy(site, three, after, [one]))
    expect(steps).toEqual(loaded(wholeRuleset(hostNetwork, [one, after])))
    const back = loaded(wholeRuleset(hostNetwork, [one, after]), changePolicy(site, after, three, [one]))
    expect(back).toEqual(loaded(wholeRuleset(hostNetwork, [one, three])))
  })

  test("what name servers have learned survives a renewal", () => {
    const text = wholeRuleset(hostNetwork, [three], new Map([["names_x", ["203.0.113.1", "203.0.113.2"]]]))
    expect(loaded(text).join("\n")).toMatch(/set names_x[^}]*203\.0\.113\.1, 203\.0\.113\.2/)
  })

  test("rules of others stay", () => {
    const other = "table inet other {\n chain input {\n type filter hook input priority 0;\n }\n}"
    expect(loaded(other, wholeRuleset(hostNetwork, [one]), noRuleset(site))).toEqual(loaded(other))
  })
})
