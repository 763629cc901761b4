/** A task as a stream of JSON lines, one for each change. */

import type { TaskLine } from "@bhatti/contract/task"
import type { Core } from "../core/core.ts"
import { followTask } from "../core/tasks.ts"
import { toAppError } from "../gate/errors.ts"
import { onRevoked } from "../gate/revocation.ts"
import type { Account } from "../store/users.ts"
import { jsonLines, type StreamedAnswer } from "./streamed-answer.ts"
import { viewTask } from "./views/task.ts"

/** Well below the time after which the front treats a silent answer as dead. */
const quietMs = 30_000

export function followedTask(core: Core, account: Account, id: string, revoked: AbortSignal): StreamedAnswer {
  const over = new AbortController()
  const listening = onRevoked(revoked, () => over.abort())
  const changes = followTask(core, account, id, { signal: over.signal, quietMs })
  const lines = linesOf(changes, revoked)
  return jsonLines(lines, () => {
    listening[Symbol.dispose]()
    over.abort()
  })
}

/** Yields undefined if nothing changed for a while. */
async function* linesOf(
  changes: ReturnType<typeof followTask>,
  revoked: AbortSignal,
): AsyncGenerator<TaskLine | undefined> {
  try {
    for await (const change of changes) yield change === "quiet" ? undefined : viewTask(change)
    revoked.throwIfAborted()
  } catch (error) {
    const { code, message, hint } = toAppError(error)
    yield { type: "error", data: message, code, hint: hint ?? null }
  }
}
