/** Network rules of e2b's as a policy of ours. A rule that cannot be kept is refused and not ignored. */

import { isIP } from "node:net"
import { AppError } from "@bhatti/contract/errors"
import type { NetPolicyInput } from "@bhatti/contract/network"
import type { Network } from "./shapes.ts"

const everywhere = "0.0.0.0/0"

/** Returns undefined if nothing is asked for. */
export function policyOf(
  network: Network | null | undefined,
  internet: boolean | null | undefined,
): Partial<NetPolicyInput> | undefined {
  const { allowOut, denyOut, rules, egressProxy, allow_internet_access } = network ?? {}
  if (isGiven(rules)) throw unsupported("network.rules")
  if (isGiven(egressProxy)) throw unsupported("network.egressProxy")
  const denied = denyOut ?? []
  const allowed = allowOut ?? []
  const isClosed = denied.includes(everywhere) || (internet ?? allow_internet_access) === false
  if (!isClosed) {
    if (denied.length > 0) throw unsupported(`network.denyOut without ${everywhere}`)
    return network || internet !== undefined ? { default: "public" } : undefined
  }
  const isNetwork = (one: string) => isIP(one.split("/")[0] ?? "") !== 0
  return {
    default: "deny",
    allow_hosts: allowed.filter((one) => !isNetwork(one)),
    allow_cidrs: allowed.filter(isNetwork),
  }
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && Object.keys(value).length > 0
}

export function unsupported(what: string): AppError {
  return new AppError("invalid", `${what} is not supported`)
}
