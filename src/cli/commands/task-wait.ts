/** `bhatti task wait`. */

import { command } from "../command.ts"
import { followTask, resultOf } from "../follow-task.ts"

export const taskWait = command({
  args: ["task"],
  description: "Shows its progress and fails if the task does. Ctrl-C ends the wait, and the task goes on.",
  options: {
    quiet: { type: "flag", short: "q", summary: "Print only the name of the image, and no progress" },
  },
  examples: ["bhatti task wait task_0123456789abcdef"],
  async run({ client, args, options, isJson, out }) {
    const isQuiet = options.quiet || isJson
    const task = await followTask({ client, out }, args.task, { isQuiet, isCancelledBySignals: false })
    if ("exitCode" in task) return task.exitCode
    const { image } = resultOf(task)
    if (isJson) return await out.json(task)
    await out.result(options.quiet ? image : `image/${image} is ready`)
  },
})
