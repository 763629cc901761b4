/** `bhatti image pull`. */

import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { credentialFor, readCredential } from "../registry-credentials.ts"
import { secondsText } from "../words.ts"

export const imagePull = command({
  args: ["reference"],
  description: `Fetches an image from a registry and makes a template of it, so that the first create is fast. A later pull of a tag that has
moved gives the image new content; sandboxes keep the one that they were made from.

Credentials come from this machine: the files of podman login and docker login, and Docker's credential helpers. They are
sent with this request and not stored. Without any, a login of bhatti registry login is used. Ctrl-C cancels the pull.`,
  options: {
    name: { type: "text", short: "n", value: "NAME", summary: "Name of the image (default: the reference)" },
    platform: { type: "text", value: "OS/ARCH", summary: "Platform, if not that of sandboxes, linux/amd64" },
    authStdin: { type: "flag", summary: "Read USER:TOKEN from standard input" },
    noPrepare: { type: "flag", summary: "Make no template; the first create waits for it" },
    detach: { type: "flag", short: "d", summary: "Print the task's id and do not wait" },
    quiet: { type: "flag", short: "q", summary: "Print only the name, and no progress" },
  },
  examples: [
    "bhatti image pull registry.example.com/team/app:1.4",
    "bhatti image pull --name app registry.example.com/team/app@sha256:DIGEST",
    "bhatti image pull --detach registry.example.com/team/app",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const auth = options.authStdin
      ? await readCredential()
      : await credentialFor({ client, out }, args.reference)
    const started = await client.pullImage({
      body: {
        ref: args.reference,
        prepare: !options.noPrepare,
        ...(options.name !== undefined && { name: options.name }),
        ...(options.platform !== undefined && { platform: options.platform }),
        ...(auth !== undefined && { auth }),
      },
    })
    if (started.task_id === null) {
      if (isJson) return await out.json(started)
      return await out.result(
        options.quiet ? started.image : `image/${started.image} unchanged (already here)`,
      )
    }
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    const { image, digest } = resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(image)
    await out.result(
      `image/${image} pulled (${digest.slice(0, 19)}) in ${secondsText(performance.now() - startMs)}`,
    )
    await out.hint(`  try: bhatti create --image ${image}`)
  },
})
