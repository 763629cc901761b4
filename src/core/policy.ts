/** A sandbox's settings as its owner requests them. A network policy that cannot be enforced is refused. */

import { AppError } from "@bhatti/contract/errors"
import { type NetPolicy, NetPolicyInput, policyFrom } from "@bhatti/contract/network"
import { type SandboxSettings, settingNames } from "../store/sandbox-spec.ts"
import type { OnHost } from "./core.ts"

/** Settings left out are not requested. */
export type RequestedSettings = {
  [Name in keyof SandboxSettings]?:
    | (Name extends "netPolicy" ? Partial<NetPolicyInput> : SandboxSettings[Name])
    | undefined
}

export function requestedNames(request: RequestedSettings): (keyof SandboxSettings)[] {
  return settingNames.filter((name) => request[name] !== undefined)
}

export function settingsAskedFor(
  core: OnHost<"network">,
  request: RequestedSettings,
): Partial<SandboxSettings> {
  const settings = Object.fromEntries(requestedNames(request).map((name) => [name, request[name]]))
  if (request.ttlSec === 0) settings["ttlSec"] = null
  return request.netPolicy ? { ...settings, netPolicy: policyAskedFor(core, request.netPolicy) } : settings
}

export function policyAskedFor(core: OnHost<"network">, input: Partial<NetPolicyInput> = {}): NetPolicy {
  const checked = NetPolicyInput.safeParse(input)
  if (!checked.success) throw new AppError("invalid", checked.error.issues[0]?.message ?? "invalid policy")
  const policy = policyFrom(checked.data)
  const closed = core.host.network?.closedAmong(policy.allow_cidrs) ?? []
  if (closed.length === 0) return policy
  throw new AppError("invalid", `${closed.join(", ")}: internal, and not open to sandboxes`, {
    hint: "leave it out, or ask the operator, who opens internal networks with allow_internal in config.yaml",
  })
}
