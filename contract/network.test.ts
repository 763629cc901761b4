/** The network policies that are accepted. */

import { expect, test } from "bun:test"
import { NetPolicyInput, policyFrom } from "./network.ts"

const read = (input: unknown) => policyFrom(NetPolicyInput.parse(input))
const isRefused = (input: unknown) => !NetPolicyInput.safeParse(input).success

test("nothing said is public; a list alone means deny", () => {
  expect(read({})).toEqual({ default: "public", allow_hosts: [], allow_cidrs: [] })
  expect(read({ default: "deny" }).default).toBe("deny")
  expect(read({ allow_hosts: ["example.com"] }).default).toBe("deny")
  expect(read({ allow_cidrs: ["203.0.113.0/24"] }).default).toBe("deny")
})

test("lists are kept in one form, so that equal policies are equal", () => {
  const one = read({ allow_hosts: ["B.example.com", "*.A.org"], allow_cidrs: ["203.0.113.9"] })
  const other = read({
    allow_hosts: ["*.a.org", "b.example.com", "b.example.com"],
    allow_cidrs: ["203.0.113.9/32"],
  })
  expect(one).toEqual(other)
})

test("public with a list, and what is no name or no network, is refused", () => {
  expect(isRefused({ default: "public", allow_hosts: ["example.com"] })).toBe(true)
  expect(isRefused({ default: "open" })).toBe(true)
  const names = [
    "",
    "*",
    "com",
    "a..b",
    "*.com",
    "a.*.com",
    "*a.example.com",
    "10.0.0.1",
    "-a.example.com",
    "a/b.example.com",
    "a.example.com/x",
    "a\nserver=/x/1.2.3.4",
    "a.b#c.d",
    `${"a".repeat(64)}.com`,
  ]
  for (const name of names) expect([name, isRefused({ allow_hosts: [name] })]).toEqual([name, true])
  const networks = [
    "",
    "0.0.0.0/0",
    "1.2.3.4/33",
    "1.2.3",
    "fd00::/8",
    "::1",
    "1.2.3.4/8 accept",
    "10.0.0.0/08",
  ]
  for (const cidr of networks) expect([cidr, isRefused({ allow_cidrs: [cidr] })]).toEqual([cidr, true])
})
