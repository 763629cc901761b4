/** `bhatti task cancel`. */

import { command } from "../command.ts"
import { forEachName } from "../each-name.ts"

export const taskCancel = command({
  rest: { name: "task", kind: "names" },
  description: "Leaves nothing of the task behind. A task that has ended stays as it is.",
  examples: ["bhatti task cancel task_0123456789abcdef"],
  async run({ client, rest, isJson, out, report }) {
    return await forEachName([...new Set(rest)], { report }, async (id) => {
      const task = await client.cancelTask({ params: { id } })
      await (isJson ? out.json(task) : out.result(`task/${id} ${task.status}`))
    })
  },
})
