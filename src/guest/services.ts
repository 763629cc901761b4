/** Services on the wire; the twin of agent/wire/service.go. */

import { isGuestReason } from "@bhatti/contract/errors"
import type { GuestService, GuestServiceState } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isObject, parseObject } from "./message.ts"
import { parseEnd } from "./process-message.ts"

/** Limits on a guest's report. */
const servicesMax = 64
const wordsMax = 4096

const states = ["running", "backing_off", "ended", "stopped"] as const
const policies = ["always", "on-failure", "never"] as const

export function encodeServices(services: readonly GuestService[]): object {
  return {
    services: services.map(({ name, argv, user, cwd, restart, after, program }) => ({
      ...{ name, argv, restart, after, program },
      ...(user !== null && { user }),
      ...(cwd !== null && { cwd }),
    })),
  }
}

export function parseServices(value: unknown): GuestServiceState[] {
  const list = isObject(value) ? value["services"] : undefined
  if (!Array.isArray(list) || list.length > servicesMax) throw unreadable()
  return list.map(parseService)
}

function parseService(value: unknown): GuestServiceState {
  if (!isObject(value)) throw unreadable()
  const { name, argv, restarts, process, ended, failure, failing, retry_ms: retryMs } = value
  const { failure_reason: failureReason } = value
  const state = states.find((one) => one === value["state"])
  const restart = policies.find((one) => one === value["restart"])
  const isList = Array.isArray(argv) && argv.every((word) => typeof word === "string")
  if (typeof name !== "string" || !state || !restart || !isList || !isCount(restarts)) throw unreadable()
  return {
    ...{ name: name.slice(0, wordsMax), argv, state, restart, restarts },
    process: typeof process === "string" && /^[a-z][0-9]{1,15}$/.test(process) ? process : null,
    ended: isObject(ended) ? parseEnd(ended) : null,
    failure: typeof failure === "string" ? failure.slice(0, wordsMax) : null,
    failureReason: isGuestReason(failureReason) ? failureReason : null,
    isFailing: failing === true,
    retryMs: isCount(retryMs) ? retryMs : null,
  }
}

/** Returns undefined for another report. */
export function parseServiceNotice(payload: Uint8Array): GuestServiceState | undefined {
  const { service_failing: failing } = parseObject(payload)
  return isObject(failing) ? parseService(failing) : undefined
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}

function unreadable(): WireError {
  return new WireError("the guest's answer about services cannot be read")
}
