/** A streamed answer of e2b's agent, as the front takes it. */

import type { UniversalHandler } from "@connectrpc/connect/protocol"
import { onRevoked } from "../gate/revocation.ts"

/** A streamed body, as the front takes it. */
type Bytes = { pace: undefined; read(): Promise<Uint8Array | undefined>; close(): void }
export type EnvdAnswer = { response: Response; bytes: Bytes | undefined }

type Streaming = Pick<Awaited<ReturnType<UniversalHandler>>, "status" | "header" | "body">

/** Ends with its reader and with the key; `stop` is aborted then. */
export function streamed(
  { status, header = new Headers(), body }: Streaming,
  { stop, revoked }: { stop: AbortController; revoked: AbortSignal },
): EnvdAnswer {
  const response = new Response(null, { status, headers: header })
  if (!body) return { response, bytes: undefined }
  const pieces = body[Symbol.asyncIterator]()
  let over: { reason: unknown } | undefined
  // A promise of the end that all reads race with would keep something of each.
  let giveUp: ((reason: unknown) => void) | undefined
  const end = (reason: unknown) => {
    over ??= { reason }
    giveUp?.(over.reason)
  }
  const listening = onRevoked(revoked, end)
  return {
    response,
    bytes: {
      pace: undefined,
      async read() {
        if (over) throw over.reason
        const { done, value } = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
          giveUp = reject
          pieces.next().then(resolve, reject)
        })
        return done ? undefined : value
      },
      close() {
        listening[Symbol.dispose]()
        end(new Error("the answer is over"))
        stop.abort()
        // A body that nobody asks for its next piece does not see that.
        pieces.return?.()?.catch(() => undefined)
      },
    },
  }
}
