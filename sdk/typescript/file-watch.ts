/** Follows a watch of a directory over connections that may break. */

import { AppError, isErrorCode } from "@bhatti/contract/errors"
import type { FileEvent, FileEventLine, FileWatch } from "@bhatti/contract/file"

type Calls = {
  create(): Promise<FileWatch>
  stream(watch: string, after: number): Promise<AsyncIterable<string>>
  remove(watch: string): Promise<unknown>
  failureOf(error: unknown): AppError
}

/** How long a daemon may be away, for example for its update. */
const awayMs = 60_000
const retryMs = 500

export type FileChange = FileEvent | { type: "watching"; watch: string }

export async function* followWatch(
  calls: Calls,
  signal: AbortSignal | undefined,
): AsyncGenerator<FileChange> {
  const place = { watch: (await calls.create()).watch, after: 0 }
  yield { type: "watching", watch: place.watch }
  let lastAtMs = performance.now()
  try {
    for (;;) {
      try {
        for await (const line of await calls.stream(place.watch, place.after)) {
          lastAtMs = performance.now()
          const event = line === "" ? undefined : (JSON.parse(line) as FileEventLine)
          if (event === undefined || event.type === "watching") continue
          if (event.type === "end") return
          if (event.type === "error") throw asError(event)
          yield event
          place.after = event.sequence
        }
      } catch (error) {
        signal?.throwIfAborted()
        const known = error instanceof AppError ? error : calls.failureOf(error)
        if (known.code === "not_found") {
          // The sandbox was booted anew, or is gone, which the next call tells.
          Object.assign(place, { watch: (await calls.create()).watch, after: 0 })
          yield lostAtBoot
        } else if (!known.retryable || performance.now() - lastAtMs > awayMs) throw known
      }
      await new Promise((resolve) => setTimeout(resolve, retryMs))
      signal?.throwIfAborted()
    }
  } finally {
    // Otherwise the watch ends when nobody has read it for long.
    await calls.remove(place.watch).catch(() => undefined)
  }
}

const lostAtBoot: FileEvent = {
  type: "lost",
  path: ".",
  to: null,
  is_dir: true,
  reason: "the sandbox was booted anew",
  sequence: 0,
}

function asError({ code, data, hint }: Extract<FileEventLine, { type: "error" }>): AppError {
  const known = isErrorCode(code) ? code : "internal"
  return new AppError(known, data, hint === null ? {} : { hint })
}
