/** A sandbox's network policy as its owner requests it. A policy that cannot be enforced is refused. */

import { AppError } from "@bhatti/contract/errors"
import { type NetPolicy, type NetPolicyInput, policyFrom } from "@bhatti/contract/network"
import type { Core } from "./core.ts"

export function policyAskedFor(core: Core, input: Partial<NetPolicyInput> = {}): NetPolicy {
  const policy = policyFrom(input)
  const closed = core.host.network?.closedAmong(policy.allow_cidrs) ?? []
  if (closed.length === 0) return policy
  throw new AppError("invalid", `${closed.join(", ")}: internal, and not open to sandboxes`, {
    hint: "leave it out, or ask the operator, who opens internal networks with allow_internal in config.yaml",
  })
}
