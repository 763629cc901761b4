/** `bhatti task list`. */

import { command } from "../command.ts"
import { ageText } from "../words.ts"

export const taskList = command({
  description: "Pulls and imports of images. Ended ones are kept for a week.",
  options: { quiet: { type: "flag", short: "q", summary: "Print only ids" } },
  examples: ["bhatti task list", "bhatti task list --json"],
  async run({ client, options, isJson, out }) {
    const tasks = await client.listTasks()
    if (isJson) return await out.json(tasks)
    if (options.quiet) {
      for (const { id } of tasks) await out.result(id)
      return
    }
    if (tasks.length === 0) return await out.talk("no tasks")
    const nowMs = Date.now()
    const reasons = tasks.some(({ error }) => error !== null)
    await out.table(
      ["ID", "TYPE", "IMAGE", "STATUS", "STEP", "CREATED", ...(reasons ? ["REASON"] : [])],
      tasks.map(({ id, type, subject, status, progress, error, completed_at, created_at }) => [
        ...[id, type, subject, status],
        ...[completed_at === null ? progress.step : "-", ageText(created_at, nowMs)],
        ...(reasons ? [error?.message ?? "-"] : []),
      ]),
    )
  },
})
