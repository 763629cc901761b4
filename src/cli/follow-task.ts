/**
 * Waits for a task and shows how far it is. Ctrl-C and SIGTERM cancel the task; a second one leaves at once.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Task } from "@bhatti/contract/task"
import type { Client } from "@bhatti/sdk/client"
import type { Output } from "./output.ts"
import { onSignals, signalExitCodes } from "./signals.ts"
import { TaskProgressLines } from "./task-progress.ts"

/** How long a daemon that does not answer, as while it is updated, is asked again. */
const awayMs = 60_000
const retryMs = 500

type Context = { client: Client; out: Output }
type Options = { isQuiet: boolean; isCancelledBySignals: boolean }

/** Returns the task that has ended, or the exit code of the signal that ended the wait. */
export async function followTask(
  { client, out }: Context,
  id: string,
  { isQuiet, isCancelledBySignals }: Options,
): Promise<Task | { exitCode: number }> {
  await using lines = await TaskProgressLines.open(out, { isQuiet })
  const left = Promise.withResolvers<{ exitCode: number }>()
  let exitCode: number | undefined
  using _listening = isCancelledBySignals
    ? onSignals(["SIGINT", "SIGTERM"], (signal) => {
        if (exitCode !== undefined) return left.resolve({ exitCode })
        exitCode = signalExitCodes[signal]
        void out.talk("cancelling; Ctrl-C again leaves that to the daemon")
        void client.cancelTask({ params: { id } }).catch(left.reject)
      })
    : undefined
  const ended = untilEnd(client, id, (task) => lines.show(task))
  ended.catch(() => undefined)
  const task = await Promise.race([ended, left.promise])
  return exitCode !== undefined && !("exitCode" in task) && task.status !== "done" ? { exitCode } : task
}

async function untilEnd(client: Client, id: string, show: (task: Task) => Promise<void>): Promise<Task> {
  let awaySince: number | undefined
  for (;;) {
    try {
      for await (const task of client.followTask(id)) {
        awaySince = undefined
        await show(task)
        if (task.completed_at !== null) return task
      }
    } catch (error) {
      if (!(error instanceof AppError && error.code === "unavailable")) throw error
      awaySince ??= performance.now()
      if (performance.now() - awaySince > awayMs) throw error
    }
    await Bun.sleep(retryMs)
  }
}

/**
 * For commands that have just begun a task: with --detach it prints the id. Returns the task that has ended, or the
 * command's exit code if there is nothing more to say.
 */
export async function followStarted(
  context: Context,
  started: { task_id: string | null },
  options: { isDetached: boolean; isQuiet: boolean; isJson: boolean },
): Promise<Task | { exitCode: number }> {
  const { out } = context
  const id = started.task_id ?? ""
  if (!options.isDetached)
    return await followTask(context, id, {
      isQuiet: options.isQuiet || options.isJson,
      isCancelledBySignals: true,
    })
  if (options.isJson) await out.json(started)
  else {
    await out.result(id)
    await out.hint(`  try: bhatti task wait ${id}`)
  }
  return { exitCode: 0 }
}

/** Throws what the task failed with. */
export function resultOf(task: Task): NonNullable<Task["result"]> {
  if (task.status === "done" && task.result !== null) return task.result
  if (task.error !== null) {
    const { code, message, hint } = task.error
    throw new AppError(code === "internal" ? "internal" : "unavailable", message, {
      ...(hint !== null && { hint }),
      retryable: false,
    })
  }
  const words =
    task.status === "interrupted" ? "was interrupted: the daemon ended meanwhile" : `was ${task.status}`
  throw new AppError("unavailable", `the task ${words}`, {
    hint: "nothing of it is left; run the command again",
  })
}
