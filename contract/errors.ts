/**
 * The one error type of the project and its codes. An error carries a message (the failure), a subject (what it is
 * about, as data), a hint (the next step, where it is the same for all) and, for the log only, its cause.
 * `src/http/errors.ts` turns it into HTTP; `src/cli/advice.ts` makes the command to type from code and subject.
 */

export const errorStatus = {
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  /** The sandbox exists, the program does not. */
  command_not_found: 400,
  not_found: 404,
  conflict: 409,
  too_large: 413,
  limit_exceeded: 429,
  unavailable: 503,
  internal: 500,
} as const

export type ErrorCode = keyof typeof errorStatus

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(errorStatus, value)
}

/** The thing that an error is about, so that a surface can give advice in its own words. */
export type Subject =
  /** The thing that is missing, exists already, or has reached its limit. */
  | { kind: "sandbox" | "snapshot" | "secret" | "user" | "image" | "task" | "registry"; name?: string }
  /** Sessions or processes of a sandbox. */
  | { kind: "session" | "process"; sandbox: string }
  /** `port` is where the alias leads now. */
  | { kind: "alias"; alias: string; port?: number }
  | { kind: "published_port"; sandbox?: string }
  /** A sandbox that backs off after failed starts. */
  | { kind: "failed_starts"; sandbox: string; seconds: number }
  /** A sandbox that is paused because its owner's quota is used up. */
  | { kind: "disk_quota"; sandbox: string }
  /** A sandbox whose machine ended under a request. `by`: the user who asked for that. */
  | { kind: "ended_sandbox"; sandbox: string; by?: string }
  /** A file of a sandbox. */
  | { kind: "file" }
  /** Part of an installation. `image`: one that it lacks and that can be built. */
  | { kind: "kernel" | "installation"; data_dir?: string; image?: string }
  /** The host, which lacks something. */
  | { kind: "host" }

/**
 * Why a command could not start, as its sandbox tells it; `not_started` if that does not say more. Reasons may be
 * added.
 */
export const startReasons = [
  "no_user",
  "no_directory",
  "no_program",
  "not_executable",
  "no_interpreter",
  "wrong_format",
  "denied",
  "too_long",
  "bad_text",
  "no_resources",
  "not_started",
] as const
export type StartReason = (typeof startReasons)[number]

/** Why a sandbox's machine ended under a request, or the daemon's connection to it. Reasons may be added. */
export const lossReasons = [
  "destroyed",
  "stopped",
  "restarted",
  "daemon_stopped",
  "machine_killed",
  "machine_lost",
  "host_out_of_memory",
  "host_restarted",
  "host_disk_full",
  "guest_poweroff",
  "guest_reboot",
  "guest_panic",
  "agent_failed",
  "init_ended",
  "unresponsive",
  "channel_lost",
] as const
export type LossReason = (typeof lossReasons)[number]

/** Reasons that a guest may give: no other, since root in a guest would pretend what only the daemon can know. */
const guestReasons: ReadonlySet<unknown> = new Set([...startReasons, "key_reused", "forgotten", "rebooted"])

export function isGuestReason(value: unknown): value is string {
  return guestReasons.has(value)
}

export type ErrorOptions = {
  /** The next step, in words that fit every surface. */
  hint?: string | undefined
  subject?: Subject | undefined
  /** The exact cause within the code, such as a `StartReason` or an `LossReason`: nobody has to read the message. */
  reason?: string | undefined
  /** The inner error, for the log only. */
  cause?: unknown
  /** True if a retry without any change may succeed. Default: only for `unavailable`. */
  retryable?: boolean
  /** Earliest useful retry. Only for `limit_exceeded` and `unavailable`. */
  retryAfterSec?: number
}

/** An error the caller can act on. Any other thrown value is a bug and becomes `internal`. */
export class AppError extends Error {
  override readonly name = "AppError"
  readonly code: ErrorCode
  readonly hint: string | undefined
  readonly subject: Subject | undefined
  readonly reason: string | undefined
  readonly retryable: boolean
  readonly retryAfterSec: number | undefined

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.hint = options.hint
    this.subject = options.subject
    this.reason = options.reason
    this.retryable = options.retryable ?? code === "unavailable"
    this.retryAfterSec = options.retryAfterSec
  }

  /** Returns a copy with changes; its cause is this error, unless another is given. */
  but({
    code = this.code,
    message = this.message,
    ...changes
  }: ErrorOptions & { code?: ErrorCode; message?: string }): AppError {
    const { hint, subject, reason, retryable, retryAfterSec } = this
    const kept = { hint, subject, reason, ...(retryAfterSec !== undefined && { retryAfterSec }) }
    const isKindKept = code === this.code
    return new AppError(code, message, { ...kept, ...(isKindKept && { retryable }), cause: this, ...changes })
  }
}

/** For states that the code around it rules out; reaching it is a bug. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
