/** `bhatti image push`. */

import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { credentialFor, readCredential } from "../registry-credentials.ts"
import { secondsText } from "../words.ts"

export const imagePush = command({
  args: ["image"],
  optionalArgs: ["reference"],
  description: `Sends an image to a registry, as one layer with its whole tree. REFERENCE says where to, [HOST[:PORT]/]REPOSITORY[:TAG]; without one the
image's own name does.

Credentials come from this machine, as for image pull. Ctrl-C cancels the push.`,
  options: {
    authStdin: { type: "flag", summary: "Read USER:TOKEN from standard input" },
    detach: { type: "flag", short: "d", summary: "Print the task's id and do not wait" },
    quiet: { type: "flag", short: "q", summary: "Print only the digest, and no progress" },
  },
  examples: [
    "bhatti image push app:1 registry.example.com/team/app:1",
    "bhatti image push registry.example.com/team/app:1",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const { image, reference = image } = args
    const auth = options.authStdin ? await readCredential() : await credentialFor({ client, out }, reference)
    const started = await client.pushImage({
      params: { name: image },
      body: { ref: reference, ...(auth !== undefined && { auth }) },
    })
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    const { digest } = resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(digest)
    await out.result(
      `image/${image} pushed to ${reference} (${digest.slice(0, 19)}) in ${secondsText(performance.now() - startMs)}`,
    )
  },
})
