/**
 * What a key that is taken away ends. What is open ends when `core/keys.ts` notices; what arrives is not even begun with: the
 * database is asked again for each piece of it.
 */

import type { KeyHolder } from "../core/keys.ts"

/** Calls `end` once, at once if it has happened already. To be disposed of when the request is over. */
export function onRevoked(revoked: AbortSignal, end: (reason: unknown) => void): Disposable {
  const listener = () => end(revoked.reason)
  if (revoked.aborted) listener()
  else revoked.addEventListener("abort", listener, { once: true })
  // The signal lives as long as the key, and would keep what every request holds.
  return { [Symbol.dispose]: () => revoked.removeEventListener("abort", listener) }
}

/** The work's outcome, or the reason why it must not go on. */
export async function unlessRevoked<T>(revoked: AbortSignal, work: Promise<T>, stop: () => void): Promise<T> {
  const ended = Promise.withResolvers<never>()
  using _listening = onRevoked(revoked, (reason) => {
    stop()
    ended.reject(reason)
  })
  return await Promise.race([work, ended.promise])
}

/** The body, of which no piece, and not its end, is given on that came when the key was not valid any more. */
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
