/** Bodies that are bytes: streamed from the guest as the client takes them, and to the guest as it takes them. */

import { AppError } from "../contract/errors.ts"
import type { Log } from "../core/core.ts"
import { onRevoked, unlessRevoked } from "./revocation.ts"

type Source = {
  readonly output: AsyncIterable<Uint8Array>
  readonly result: Promise<unknown>
  close(): void
}

/**
 * The source's output as a response. An error before the first byte is thrown and becomes a proper answer; one after
 * it breaks the connection off, so that the client cannot take a part for the whole.
 */
export async function bytesReply(
  source: Source,
  options: { headers: Record<string, string>; revoked: AbortSignal; log: Log },
): Promise<Response> {
  source.result.catch(() => undefined)
  const chunks = source.output[Symbol.asyncIterator]()
  const first = await unlessRevoked(options.revoked, chunks.next(), () => source.close())
  if (first.done) await source.result
  let next: IteratorResult<Uint8Array> | undefined = first
  /** Of the read that is waited for. */
  let giveUp: ((reason: unknown) => void) | undefined
  const listening = onRevoked(options.revoked, (reason) => {
    source.close()
    giveUp?.(reason)
  })
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          options.revoked.throwIfAborted()
          const { done, value } = next ?? (await orGivenUp(chunks.next()))
          next = undefined
          if (!done) return controller.enqueue(value)
          await source.result
        } catch (error) {
          listening[Symbol.dispose]()
          if (!(error instanceof AppError)) options.log.error({ error }, "internal error in a body")
          throw error
        }
        listening[Symbol.dispose]()
        controller.close()
      },
      cancel() {
        listening[Symbol.dispose]()
        source.close()
      },
    },
    { highWaterMark: 1 },
  )
  function orGivenUp<T>(read: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      giveUp = reject
      read.then(resolve, reject)
    })
  }
  return new Response(body, {
    headers: {
      "content-type": "application/octet-stream",
      "cache-control": "no-store",
      ...options.headers,
    },
  })
}

/** The body as chunks. One that breaks off before its declared length throws. */
export async function* bodyChunks(request: Request, revoked?: AbortSignal): AsyncGenerator<Uint8Array> {
  const declared = declaredLength(request)
  let bytes = 0
  const brokenOff = () =>
    new AppError("invalid", `the body ended after ${bytes} of ${declared ?? "unknown"} bytes`)
  if (request.body) {
    const reader = request.body.getReader()
    using _listening = revoked && onRevoked(revoked, (reason) => void reader.cancel(reason))
    try {
      for (;;) {
        // Reading fails only when the client has gone.
        const { done, value } = await reader.read().catch(() => Promise.reject(brokenOff()))
        if (done) break
        bytes += value.length
        yield value
      }
    } finally {
      await reader.cancel().catch(() => undefined)
    }
  }
  revoked?.throwIfAborted()
  if (request.signal.aborted || (declared !== undefined && bytes !== declared)) throw brokenOff()
}

export function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length")
  if (header === null || !/^\d{1,15}$/.test(header)) return undefined
  return Number(header)
}
