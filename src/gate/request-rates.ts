/** Limits each user's rate of requests: creates, commands, and everything else are counted separately. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { RateLimiter } from "../lib/rate-limit.ts"
import type { Account } from "../store/users.ts"

export type RequestKind = "create" | "exec" | "other"

type Rate = { burst: number; per_minute: number }

export class RequestRates {
  readonly #limiters: Record<RequestKind, RateLimiter>

  constructor(rates: Record<RequestKind, Rate>) {
    const limiter = ({ burst, per_minute }: Rate) =>
      new RateLimiter({ burst, perMinute: per_minute }, { bucketsMax: limits.rateLimitBucketsMax })
    this.#limiters = {
      create: limiter(rates.create),
      exec: limiter(rates.exec),
      other: limiter(rates.other),
    }
  }

  count(kind: RequestKind, account: Account): void {
    const decision = this.#limiters[kind].take(account.id, performance.now())
    if (decision.kind === "allowed") return
    const retryAfterSec = Math.ceil(decision.retryAfterMs / 1000)
    throw new AppError("limit_exceeded", "too many requests", {
      hint: `wait ${retryAfterSec} s; the operator sets rate_limits in config.yaml`,
      retryable: true,
      retryAfterSec,
    })
  }
}
