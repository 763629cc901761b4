/** Limits each user's rate of requests: creates, commands, and everything else are counted separately. */

import type { api } from "@bhatti/contract/api"
import type { RateLimits } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { RateLimiter } from "../lib/rate-limit.ts"
import type { Account } from "../store/users.ts"

type Kind = "create" | "exec" | "other"

/** Endpoints not listed here are "other". */
const kinds: Partial<Record<keyof typeof api, Kind>> = {
  createSandbox: "create",
  createSandboxes: "create",
  checkpointSandbox: "create",
  resumeSnapshot: "create",
  exec: "exec",
  execSocket: "exec",
  shellSocket: "exec",
  writeFile: "exec",
  writeArchive: "exec",
}

export class RequestRates {
  readonly #limiters: Record<Kind, RateLimiter>

  constructor(rates: RateLimits) {
    const limiter = ({ burst, per_minute }: RateLimits[Kind]) =>
      new RateLimiter({ burst, perMinute: per_minute }, { bucketsMax: limits.rateLimitBucketsMax })
    this.#limiters = {
      create: limiter(rates.create),
      exec: limiter(rates.exec),
      other: limiter(rates.other),
    }
  }

  count(endpoint: keyof typeof api, account: Account): void {
    const kind = kinds[endpoint] ?? "other"
    const decision = this.#limiters[kind].take(account.id, performance.now())
    if (decision.kind === "allowed") return
    throw new AppError("limit_exceeded", "too many requests", {
      hint: "wait as long as Retry-After says; the operator sets rate_limits in config.yaml",
      retryable: true,
      retryAfterSec: Math.ceil(decision.retryAfterMs / 1000),
    })
  }
}
