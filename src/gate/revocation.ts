/**
 * Ends requests whose key is revoked. Open requests end when `core/keys.ts` notices; new input is not processed at all:
 * the database is asked again for each piece.
 */

import type { KeyHolder } from "../core/keys.ts"
import { whenAborted } from "../lib/when-aborted.ts"

/** Calls `end` once; immediately if the key is already revoked. Dispose of the result when the request is over. */
export function onRevoked(revoked: AbortSignal, end: (reason: unknown) => void): Disposable {
  return whenAborted(revoked, () => end(revoked.reason))
}

/** Returns the result of `work`, or throws the reason of the revocation. */
export async function unlessRevoked<T>(revoked: AbortSignal, work: Promise<T>, stop: () => void): Promise<T> {
  const ended = Promise.withResolvers<never>()
  using _listening = onRevoked(revoked, (reason) => {
    stop()
    ended.reject(reason)
  })
  return await Promise.race([work, ended.promise])
}

/** Passes on the body; withholds every piece, and the end, that arrived after the key was revoked. */
export function withValidKey(body: AsyncIterable<Uint8Array>, holder: KeyHolder): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      const pieces = body[Symbol.asyncIterator]()
      return {
        async next() {
          const piece = await pieces.next()
          await holder.confirm()
          return piece
        },
      }
    },
  }
}
