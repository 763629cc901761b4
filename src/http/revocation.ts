/** What is open ends when the key that it was opened with is taken away (`core/keys.ts` notices). */

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
