/** A request that starts a command, sent again with the same key if its connection is lost: the command runs once. */

import { AppError } from "@bhatti/contract/errors"
import { Refusal, wasLostOnTheWay } from "./failure.ts"
import { Attempts, isLossToRetry, type Reconnection, randomKey, unknownFate } from "./reconnection.ts"

type Request = {
  send: (keyed: { key: string; elapsed_ms: number } | undefined) => Promise<unknown>
  /** Resolves to true if the daemon knows keys of commands. */
  knowsKeys: () => Promise<boolean>
}

export async function runOnce(reconnection: Reconnection, { send, knowsKeys }: Request): Promise<unknown> {
  const attempts = new Attempts(reconnection)
  if (!attempts.isAllowed) return send(undefined)
  const key = randomKey()
  const startMs = performance.now()
  for (;;) {
    const elapsed_ms = attempts.isLost ? Math.ceil(performance.now() - startMs) + 1 : 0
    try {
      const result = await send({ key, elapsed_ms })
      attempts.succeeded()
      return result
    } catch (error) {
      if (!(error instanceof AppError)) throw error
      const isDaemons = error.code === "invalid" && error.reason === undefined
      if (isDaemons && !attempts.isLost && !(await knowsKeys())) return send(undefined)
      if (!isWorthAnother(error, attempts)) throw error
      if (!(await attempts.next())) throw unknownFate(error)
    }
  }
}

/** An answer of the daemon is final, unless it tells that the command may go on. */
function isWorthAnother(error: AppError, attempts: Attempts): boolean {
  if (isLossToRetry(error)) return true
  if (error.code !== "unavailable" || !error.retryable) return false
  if (attempts.isLost) return true
  return !(error instanceof Refusal) && (error.cause === undefined || wasLostOnTheWay(error.cause))
}
