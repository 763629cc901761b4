/** Network policy: the destinations a sandbox may reach. Sandboxes have IPv4 only, and so do the rules. */

import { z } from "zod"
import { limits } from "./limits.ts"

const label = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"

export const HostPattern = z
  .string()
  .max(253)
  .toLowerCase()
  .regex(
    new RegExp(`^(\\*\\.)?(${label}\\.)+${label}$`),
    "use a name such as api.example.com, or *.example.com for all names below example.com",
  )
  .refine((name) => !/\.[0-9]+$/.test(name), "an address is not a name; use allow_cidrs")

/** An address or a network; a single address matches only itself. */
export const Cidr = z
  .union([z.ipv4().transform((address) => `${address}/32`), z.cidrv4()], {
    error: "use an IPv4 network such as 203.0.113.0/24, or an IPv4 address",
  })
  .refine((cidr) => /\/([1-9]|[12][0-9]|3[0-2])$/.test(cidr), "use a prefix of 1 to 32")
  .meta({ type: "string" })

export const NetPolicy = z
  .object({
    default: z
      .enum(["public", "deny"])
      .describe("public: all of the internet; deny: only what allow_hosts and allow_cidrs name"),
    allow_hosts: z
      .array(z.string())
      .describe("Names that may be reached; `*.` in front covers all names below"),
    allow_cidrs: z.array(z.string()).describe("IPv4 networks that may be reached"),
  })
  .meta({ id: "NetPolicy" })
export type NetPolicy = z.infer<typeof NetPolicy>

/** Lists without a default mean deny: a list of allowed destinations excludes all others. */
export const NetPolicyInput = z
  .strictObject({
    default: z.enum(["public", "deny"]).optional(),
    allow_hosts: z.array(HostPattern).max(limits.allowHostsMax).default([]),
    allow_cidrs: z.array(Cidr).max(limits.allowCidrsMax).default([]),
  })
  .refine(
    (policy) =>
      policy.default !== "public" || (policy.allow_hosts.length === 0 && policy.allow_cidrs.length === 0),
    "public allows everything already; use allow lists with deny",
  )
  .describe(
    "Its outbound network policy; the host, other users' sandboxes and private networks are always blocked",
  )
  .meta({ id: "NetPolicyInput" })
export type NetPolicyInput = z.infer<typeof NetPolicyInput>

export function policyFrom(input: Partial<NetPolicyInput>): NetPolicy {
  const { allow_hosts = [], allow_cidrs = [] } = input
  const hasLists = allow_hosts.length > 0 || allow_cidrs.length > 0
  return {
    default: input.default ?? (hasLists ? "deny" : "public"),
    allow_hosts: [...new Set(allow_hosts)].sort(),
    allow_cidrs: [...new Set(allow_cidrs)].sort(),
  }
}
