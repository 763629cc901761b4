/** Requests that the guest answers once, as the wire has them. */

import type {
  GuestAnswer,
  GuestIdentity,
  GuestQuestion,
  GuestQuestions,
  HookFailure,
  Personalised,
  Pong,
} from "@bhatti/contract/guest"
import { parsePorts } from "./dial.ts"
import { parseFileEvents, parseWatching } from "./file-watch.ts"
import { encodeAttributes, parseOwner, parseStat, readListing } from "./files.ts"
import { WireError } from "./frame.ts"
import { isObject, type Reading } from "./message.ts"
import { encodeServices, parseServices } from "./services.ts"

/** Limit on a guest's report of a repair. */
const repairWordsMax = 8192
/** Limits on its report of failed hooks. */
const hooksMax = 32
const hookNameMax = 255
const hookWordsMax = 4096

/** Randomness and the time, for a guest that starts or resumes. */
export type Moment = { entropy: Uint8Array; unixNs: bigint }

type Meaning<Op extends keyof GuestQuestions> = {
  op: string
  /** Does not count as use of the sandbox. */
  isGlance?: boolean
  /** The fields of the request; by default the question's own. */
  fieldsOf?(question: GuestQuestions[Op]["fields"], moment: Moment): object
  read(): Reading<GuestAnswer<Op>>
}

const once =
  <Answer>(parse: (value: unknown) => Answer) =>
  () => ({ parse })
const done = once(() => undefined)

export const questions: { [Op in keyof GuestQuestions]: Meaning<Op> } = {
  ping: { op: "ping", isGlance: true, read: once(parsePong) },
  personalise: {
    op: "personalise",
    fieldsOf: ({ identity }, moment) => ({ ...encodeMoment(moment), ...encodeIdentity(identity) }),
    read: once(parsePersonalised),
  },
  refresh: { op: "refresh", fieldsOf: (_, moment) => encodeMoment(moment), read: done },
  startServices: {
    op: "service_start",
    fieldsOf: ({ services }) => encodeServices(services),
    read: once(parseServices),
  },
  listServices: { op: "service_list", isGlance: true, read: once(parseServices) },
  controlService: {
    op: "service_control",
    fieldsOf: ({ service, action }) => ({ service, action, by: "client" }),
    read: once(parseServices),
  },
  setServices: {
    op: "service_set",
    fieldsOf: ({ services }) => encodeServices(services),
    read: once(parseServices),
  },
  startInit: { op: "init_start", read: done },
  startClone: { op: "clone_start", read: once(parseCloneStarted) },
  quiesce: {
    op: "quiesce",
    fieldsOf: ({ untouchedMib, hold }) => ({ untouched_mib: untouchedMib, hold: hold || undefined }),
    read: done,
  },
  nextTimer: { op: "next_timer", isGlance: true, read: once(parseNextTimer) },
  trim: {
    op: "trim",
    isGlance: true,
    fieldsOf: ({ budgetMs, untouchedMib }) => ({ budget_ms: budgetMs, untouched_mib: untouchedMib }),
    read: done,
  },
  shutdown: { op: "shutdown", read: done },
  ports: { op: "ports", read: once(parsePorts) },
  findOwner: { op: "file_owner", read: once(parseOwner) },
  listFiles: { op: "file_list", read: readListing },
  statFile: { op: "file_stat", read: once(parseStat) },
  removeFile: { op: "file_remove", read: done },
  makeDirectory: { op: "file_mkdir", read: done },
  moveFile: { op: "file_move", read: done },
  setAttributes: {
    op: "file_attributes",
    fieldsOf: ({ path, set, remove }) => ({ path, set: encodeAttributes(set), remove }),
    read: done,
  },
  openWatch: { op: "file_watch", read: once(parseWatching) },
  readWatch: { op: "file_watch_read", read: once(parseFileEvents) },
  awaitWatch: {
    op: "file_watch_read",
    isGlance: true,
    fieldsOf: ({ watch, after }) => ({ watch, after, wait: true }),
    read: once(parseFileEvents),
  },
  removeWatch: { op: "file_watch_remove", read: done },
}

export function requestOf<Op extends keyof GuestQuestions>(
  question: GuestQuestion<Op>,
  moment: Moment,
): { op: string } {
  const { op, fieldsOf } = questions[question.op]
  // The operation comes first: the guest reads it without parsing the rest, which its first moment cannot afford.
  return Object.assign({ op }, fieldsOf ? fieldsOf(question, moment) : question, { op })
}

function encodeMoment({ entropy, unixNs }: Moment): object {
  return { entropy: Buffer.from(entropy).toString("base64"), unix_ns: `${unixNs}` }
}

function encodeIdentity(identity: GuestIdentity): object {
  return {
    hostname: identity.hostname,
    machine_id: identity.machineId,
    env: identity.env,
    network: identity.network,
    grow_disk: identity.growDisk,
    is_new: identity.isNew || undefined,
    image: identity.image,
  }
}

function parsePong(value: unknown): Pong {
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

/** An older agent is never pending. */
function parsePersonalised(value: unknown): Personalised {
  if (!isObject(value) || typeof value.boot_id !== "string") {
    throw new WireError("the guest's answer to personalise cannot be read")
  }
  return { bootId: value.boot_id, isPending: value["pending"] === true, knowsImages: value["image"] === true }
}

function parseCloneStarted(value: unknown): HookFailure[] {
  const list = isObject(value) ? value["failed_hooks"] : undefined
  if (!Array.isArray(list) || list.length > hooksMax)
    throw new WireError("the guest's answer to clone_start cannot be read")
  return list.map((entry: unknown) => {
    const { hook, reason, output } = isObject(entry) ? entry : {}
    if (typeof hook !== "string" || typeof reason !== "string" || typeof output !== "string") {
      throw new WireError("the guest's answer to clone_start cannot be read")
    }
    return {
      hook: hook.slice(0, hookNameMax),
      reason: reason.slice(0, hookWordsMax),
      output: output.slice(-hookWordsMax),
    }
  })
}

/** `dueMs` is the time until the first program inside wants to run again; null if no program does. */
function parseNextTimer(value: unknown): { dueMs: number | null } {
  const due = isObject(value) ? value.due_ms : undefined
  if (due === null || (typeof due === "number" && Number.isSafeInteger(due) && due >= 0))
    return { dueMs: due }
  throw new WireError("the guest's answer to next_timer cannot be read")
}
