/**
 * The JSON messages inside the frames; see frame.ts for the twins of this file.
 *
 * Hand-written guards check the guest's messages: exactly the fields that are used, each with its type.
 */

import { AppError, isErrorCode, isReason } from "@bhatti/contract/errors"
import type { Exited, GuestCommand, GuestIdentity, Pong, TerminalSize } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"

/** Limit on a guest's report of a repair. */
const repairWordsMax = 8192

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export function encodeJson(value: unknown): Uint8Array {
  return encoder.encode(JSON.stringify(value))
}

export const requests = {
  ping: () => ({ op: "ping" }),
  quiesce: ({ untouchedMib }: { untouchedMib?: number | undefined } = {}) => ({
    op: "quiesce",
    untouched_mib: untouchedMib,
  }),
  nextTimer: () => ({ op: "next_timer" }),
  trim: ({ budgetMs, untouchedMib }: { budgetMs: number; untouchedMib?: number | undefined }) => ({
    op: "trim",
    budget_ms: budgetMs,
    untouched_mib: untouchedMib,
  }),
  shutdown: () => ({ op: "shutdown" }),
  refresh: (moment: { entropy: Uint8Array; unixNs: bigint }) => ({
    op: "refresh",
    entropy: Buffer.from(moment.entropy).toString("base64"),
    unix_ns: `${moment.unixNs}`,
  }),
  personalise: (identity: GuestIdentity, moment: { entropy: Uint8Array; unixNs: bigint }) => ({
    op: "personalise",
    entropy: Buffer.from(moment.entropy).toString("base64"),
    unix_ns: moment.unixNs.toString(),
    hostname: identity.hostname,
    machine_id: identity.machineId,
    env: identity.env,
    network: identity.network,
    grow_disk: identity.growDisk,
  }),
  /** The operation comes first: the guest reads it without parsing the rest. */
  exec: (command: GuestCommand) => ({ op: "exec", ...command }),
  signal: (name: string) => ({ signal: name }),
  resize: ({ rows, cols }: TerminalSize) => ({ resize: { rows, cols } }),
} as const

export type Result = { kind: "ok"; value: unknown } | { kind: "error"; error: AppError }

/** Reads the payload of the guest's close frame. */
export function parseResult(payload: Uint8Array): Result {
  const result = parseObject(payload)
  if (isObject(result.error)) {
    const { code, message, reason } = result.error
    if (typeof message !== "string") throw new WireError("the guest's error has no message")
    const options = isReason(reason) ? { reason } : {}
    return { kind: "error", error: new AppError(isErrorCode(code) ? code : "internal", message, options) }
  }
  if (!isObject(result.ok)) throw new WireError("the guest's result is neither a success nor an error")
  return { kind: "ok", value: result.ok }
}

export function parsePong(value: unknown): Pong {
  if (!isObject(value)) throw new WireError("the guest's answer to ping cannot be read")
  const { version, personalised, boot_failures: bootFailures = [] } = value
  const isList = Array.isArray(bootFailures) && bootFailures.every((entry) => typeof entry === "string")
  if (typeof version !== "string" || typeof personalised !== "boolean" || !isList) {
    throw new WireError("the guest's answer to ping cannot be read")
  }
  const rootReadOnly = value["root_read_only"] === true
  return { version, personalised, bootFailures, rootReadOnly, repair: parseRepair(value["repair"]) }
}

function parseRepair(value: unknown): Pong["repair"] {
  if (value === undefined) return undefined
  const { exit_code: exitCode, output } = isObject(value) ? value : {}
  if (typeof exitCode !== "number" || typeof output !== "string") {
    throw new WireError("the guest's answer to ping cannot be read")
  }
  return { exitCode, output: output.slice(0, repairWordsMax) }
}

export function parsePersonalised(value: unknown): { bootId: string } {
  if (!isObject(value) || typeof value.boot_id !== "string") {
    throw new WireError("the guest's answer to personalise cannot be read")
  }
  return { bootId: value.boot_id }
}

/** `dueMs` is the time until the first program inside wants to run again; null if no program does. */
export function parseNextTimer(value: unknown): { dueMs: number | null } {
  const due = isObject(value) ? value.due_ms : undefined
  if (due === null || (typeof due === "number" && Number.isSafeInteger(due) && due >= 0))
    return { dueMs: due }
  throw new WireError("the guest's answer to next_timer cannot be read")
}

export function parseExited(value: unknown): Exited {
  if (isObject(value)) {
    const { exit_code: exitCode, signal } = value
    const isCode =
      typeof exitCode === "number" && Number.isInteger(exitCode) && exitCode >= 0 && exitCode <= 255
    if (isCode && (signal === null || typeof signal === "string")) return { exitCode, signal }
  }
  throw new WireError("the guest's answer to exec cannot be read")
}

/** Reads a message of a running command. Returns undefined for a message that this host does not know. */
export function parseStarted(payload: Uint8Array): { pid: number } | undefined {
  const { started } = parseObject(payload)
  if (!isObject(started) || typeof started.pid !== "number") return undefined
  return { pid: started.pid }
}

export function parseObject(payload: Uint8Array): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(decoder.decode(payload))
  } catch (cause) {
    throw new WireError("the guest sent bad JSON", { cause })
  }
  if (!isObject(value)) throw new WireError("the guest's message is not a JSON object")
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}
