/** A request's id, and its line in the log. */

import { limits } from "@bhatti/contract/limits"
import type { Log } from "../core/bounded-log.ts"
import { randomHex } from "../lib/random-hex.ts"

/** Takes the client's id if it has the form of one. */
export function requestIdOf(headers: Headers): string {
  const given = headers.get("x-request-id")
  return given !== null && limits.requestIdPattern.test(given) ? given : `req_${randomHex(8)}`
}

/** `startedAt` is a time of `performance.now()`. */
export function logRequest(
  log: Log,
  request: {
    id: string
    user: string | undefined
    method: string
    path: string
    status: number
    startedAt: number
  },
): void {
  const { id, user, method, path, status, startedAt } = request
  const ms = Math.round((performance.now() - startedAt) * 10) / 10
  log.info({ request_id: id, user, method, path, status, ms }, "request")
}
