/** Binary bodies: streamed from the guest at the client's pace. */

import { AppError } from "@bhatti/contract/errors"
import type { Log } from "../core/bounded-log.ts"
import type { GuestProcess } from "../core/host.ts"
import { onRevoked, unlessRevoked } from "../gate/revocation.ts"
import { StreamedAnswer } from "./streamed-answer.ts"

type Source = {
  readonly output: AsyncIterable<Uint8Array>
  readonly result: Promise<unknown>
  close(): void
}

/** Output of a process as plain bytes, for a client that takes one channel. */
export function bytesOf(process: GuestProcess): Source {
  return {
    output: (async function* () {
      for await (const { bytes } of process.output) yield bytes
    })(),
    result: process.result,
    close: () => process.leave(),
  }
}

/**
 * Returns the source's output as a response. An error before the first byte is thrown and becomes a proper answer; a
 * later one breaks the connection, so that the client cannot mistake a part for the whole.
 */
export async function bytesReply(
  source: Source,
  options: { status?: number; headers: Record<string, string>; revoked: AbortSignal; log: Log },
): Promise<StreamedAnswer> {
  const { revoked, log } = options
  source.result.catch(() => undefined)
  const chunks = source.output[Symbol.asyncIterator]()
  const first = await unlessRevoked(revoked, chunks.next(), () => source.close())
  if (first.done) await source.result
  if (revoked.aborted) source.close()
  revoked.throwIfAborted()
  let next: IteratorResult<Uint8Array> | undefined = first
  const answer = new StreamedAnswer({
    ...(options.status !== undefined && { status: options.status }),
    headers: { "content-type": "application/octet-stream", ...options.headers },
    async next() {
      try {
        const { done, value } = next ?? (await chunks.next())
        next = undefined
        if (!done) return value
        await source.result
        return undefined
      } catch (error) {
        if (!(error instanceof AppError)) log.error({ error }, "internal error in a body")
        throw error
      }
    },
    onClosed() {
      listening[Symbol.dispose]()
      source.close()
    },
  })
  const listening = onRevoked(revoked, (reason) => answer.close(reason))
  return answer
}
