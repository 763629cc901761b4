/** The events of a watch as a stream of JSON lines. */

import type { FileEventLine } from "@bhatti/contract/file"
import type { WatchStep } from "../core/file-watches.ts"
import { toAppError } from "../gate/errors.ts"
import { onRevoked, unlessRevoked } from "../gate/revocation.ts"
import { StreamedAnswer } from "./streamed-answer.ts"
import { viewFileEvent } from "./views/file.ts"

/** An error before the watch stands is thrown; a later one is the last line. */
export async function watchReply(
  follow: (signal: AbortSignal) => AsyncGenerator<WatchStep>,
  revoked: AbortSignal,
): Promise<StreamedAnswer> {
  const left = new AbortController()
  const steps = follow(left.signal)
  let next: Promise<IteratorResult<WatchStep>> | undefined = steps.next()
  await unlessRevoked(revoked, next, () => left.abort(revoked.reason))
  let isOver = false
  const listening = onRevoked(revoked, () => left.abort(revoked.reason))
  return new StreamedAnswer({
    headers: { "content-type": "application/x-ndjson" },
    async next() {
      if (isOver) return undefined
      try {
        const { done, value } = await (next ?? steps.next())
        next = undefined
        return done ? undefined : Buffer.from(`${lineOf(value)}\n`)
      } catch (error) {
        isOver = true
        const { code, message, hint } = toAppError(revoked.aborted ? revoked.reason : error)
        const line: FileEventLine = { type: "error", data: message, code, hint: hint ?? null }
        return Buffer.from(`${JSON.stringify(line)}\n`)
      }
    },
    onClosed() {
      listening[Symbol.dispose]()
      left.abort(new Error("the client left"))
      // Removes the watch once the step that is awaited has ended.
      void steps.return(undefined).catch(() => undefined)
    },
  })
}

function lineOf(step: WatchStep): string {
  switch (step.kind) {
    case "quiet":
      return ""
    case "watching":
      return JSON.stringify({ type: "watching", watch: step.watch } satisfies FileEventLine)
    case "end":
      return JSON.stringify({ type: "end", reason: step.reason } satisfies FileEventLine)
    case "event":
      return JSON.stringify(viewFileEvent(step.event) satisfies FileEventLine)
  }
}
