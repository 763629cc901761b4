/** Bodies that are bytes: streamed from the guest as the client takes them, and to the guest as it takes them. */

import { AppError } from "../contract/errors.ts"

type Source = {
  readonly output: AsyncIterable<Uint8Array>
  readonly result: Promise<unknown>
  close(): void
}

/**
 * The source's output as a response. An error before the first byte is thrown and becomes a proper answer; one after
 * it breaks the connection off, so that the client cannot take a part for the whole.
 */
export async function bytesReply(source: Source, headers: Record<string, string>): Promise<Response> {
  source.result.catch(() => undefined)
  const chunks = source.output[Symbol.asyncIterator]()
  const first = await chunks.next()
  if (first.done) await source.result
  let next: IteratorResult<Uint8Array> | undefined = first
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = next ?? (await chunks.next())
        next = undefined
        if (!done) return controller.enqueue(value)
        await source.result
        controller.close()
      },
      cancel() {
        source.close()
      },
    },
    { highWaterMark: 1 },
  )
  return new Response(body, {
    headers: { "content-type": "application/octet-stream", "cache-control": "no-store", ...headers },
  })
}

/** The body as chunks. One that breaks off before its declared length throws. */
export async function* bodyChunks(request: Request): AsyncGenerator<Uint8Array> {
  const declared = declaredLength(request)
  let bytes = 0
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length
    yield chunk
  }
  if (request.signal.aborted || (declared !== undefined && bytes !== declared)) {
    throw new AppError("invalid", `the body ended after ${bytes} of ${declared ?? "unknown"} bytes`)
  }
}

export function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length")
  if (header === null || !/^\d{1,15}$/.test(header)) return undefined
  return Number(header)
}
