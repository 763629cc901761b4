/** `bhatti image install`. */

import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { secondsText } from "../words.ts"

export const imageInstall = command({
  args: ["image"],
  description: `Has the host make one of its own images, of Debian's packages, and a template of it. It is made once, takes minutes, and serves all
users of the host; bhatti image list shows which there are. bhatti create --image NAME does the same when it is missing. Ctrl-C
cancels it, unless another user waits for it too.`,
  options: {
    detach: { type: "flag", short: "d", summary: "Print the task's id and do not wait" },
    quiet: { type: "flag", short: "q", summary: "Print only the name, and no progress" },
  },
  examples: ["bhatti image install docker", "bhatti image install --detach code-interpreter"],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const { image } = args
    const started = await client.installHostImage({ params: { name: image } })
    if (started.task_id === null) {
      if (isJson) return await out.json(started)
      return await out.result(options.quiet ? image : `image/${image} unchanged (already installed)`)
    }
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(image)
    await out.result(`image/${image} installed in ${secondsText(performance.now() - startMs)}`)
    await out.hint(`  try: bhatti create --image ${image}`)
  },
})
