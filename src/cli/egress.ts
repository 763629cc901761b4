/** The options for a sandbox's network access, shared by create and edit, and a policy as text. */

import type { NetPolicy } from "@bhatti/contract/network"

export const egressOptions = {
  egress: {
    type: "text",
    value: "public|deny",
    summary: "Network access: the whole internet, or only the allowed names and addresses",
  },
  allowHost: {
    type: "list",
    value: "NAME",
    summary:
      "Allow this host name, or *.example.com for all names below it; implies --egress deny; may be repeated",
  },
  allowCidr: {
    type: "list",
    value: "CIDR",
    summary: "Allow this IPv4 address or network; implies --egress deny; may be repeated",
  },
} as const

type Given = { egress: string | undefined; allowHost: readonly string[]; allowCidr: readonly string[] }

export function refuseEgress({ egress, allowHost, allowCidr }: Given): string | undefined {
  if (egress !== undefined && egress !== "public" && egress !== "deny")
    return `--egress is public or deny, not "${egress}"`
  if (egress === "public" && (allowHost.length > 0 || allowCidr.length > 0))
    return "--allow-host and --allow-cidr go with --egress deny"
  return undefined
}

/** Returns undefined if no option was given. */
export function netPolicyOf({ egress, allowHost, allowCidr }: Given) {
  if (egress === undefined && allowHost.length === 0 && allowCidr.length === 0) return undefined
  return {
    ...(egress !== undefined && { default: egress as NetPolicy["default"] }),
    allow_hosts: allowHost.flatMap((one) => one.split(",")),
    allow_cidrs: allowCidr.flatMap((one) => one.split(",")),
  }
}

export function egressText(policy: NetPolicy): string {
  if (policy.default === "public") return "public"
  const allowed = [...policy.allow_hosts, ...policy.allow_cidrs]
  return allowed.length === 0 ? "deny" : `deny, but ${allowed.join(", ")}`
}
