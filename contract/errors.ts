/**
 * The one error type of the project and its codes. An error carries a message (the failure), a hint (the next step)
 * and, for the log only, its cause. `src/http/errors.ts` turns it into HTTP, `src/cli/cli.ts` into text.
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

export type ErrorOptions = {
  /** The next step, preferably a command to type. */
  hint?: string | undefined
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
  readonly retryable: boolean
  readonly retryAfterSec: number | undefined

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, { cause: options.cause })
    this.code = code
    this.hint = options.hint
    this.retryable = options.retryable ?? code === "unavailable"
    this.retryAfterSec = options.retryAfterSec
  }
}

/** For states that the code around it rules out; reaching it is a bug. */
export function unreachable(value: never): never {
  throw new Error(`unreachable: ${JSON.stringify(value)}`)
}
