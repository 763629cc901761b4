/** `bhatti image save`. */

import { AppError } from "@bhatti/contract/errors"
import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { secondsText } from "../words.ts"

export const imageSave = command({
  args: ["sandbox"],
  description: `Makes an image of a sandbox's files. The sandbox runs on; one that is stopped is started. The image is of your own, like a pulled one: create
sandboxes from it, export it, or push it to a registry.

The image has no memory: programs that run now do not run in its sandboxes. It has nothing of the sandbox's identity, variables and secrets. Files
below /tmp and /var/tmp, keys of an SSH server and downloaded packages of apt are left out; everything else that was written to a file is in it, also
passwords that you have typed into one.

The configuration is that of the image that the sandbox was made from. --cmd and --entrypoint take a JSON array of words, or a line for /bin/sh.`,
  options: {
    name: {
      type: "text",
      short: "n",
      value: "NAME",
      summary: "Name of the image, with a tag if you like",
      isRequired: true,
    },
    cmd: { type: "text", value: "WORDS", summary: "The CMD of the image" },
    entrypoint: {
      type: "text",
      value: "WORDS",
      summary: "The ENTRYPOINT of the image; without --cmd it has no CMD",
    },
    env: {
      type: "variables",
      short: "e",
      value: "K=V",
      summary: "A variable of every command; may be repeated",
    },
    user: { type: "text", short: "u", value: "USER[:GROUP]", summary: "The user of its commands" },
    workdir: { type: "text", short: "w", value: "PATH", summary: "Where its commands begin" },
    noPrepare: { type: "flag", summary: "Make no template; the first create waits for it" },
    detach: { type: "flag", short: "d", summary: "Print the task's id and do not wait" },
    quiet: { type: "flag", short: "q", summary: "Print only the name, and no progress" },
  },
  examples: [
    "bhatti image save dev --name app:1",
    `bhatti image save dev --name web --cmd '["node", "server.js"]' --workdir /workspace`,
    "bhatti image save dev --name tools --user root --env EDITOR=vim",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const { user, workdir, env } = options
    const started = await client.saveImage({
      params: { id: args.sandbox },
      body: {
        name: options.name,
        prepare: !options.noPrepare,
        config: {
          ...(user !== undefined && { user }),
          ...(workdir !== undefined && { workdir }),
          ...(env !== undefined && { env }),
          ...(options.entrypoint !== undefined && {
            entrypoint: wordsOf("--entrypoint", options.entrypoint),
          }),
          ...(options.cmd !== undefined && { cmd: wordsOf("--cmd", options.cmd) }),
        },
      },
    })
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    const { image } = resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(image)
    await out.result(`image/${image} saved in ${secondsText(performance.now() - startMs)}`)
    await out.hint(`  try: bhatti create --image ${image}`)
  },
})

/** As Docker reads CMD and ENTRYPOINT. */
function wordsOf(option: string, text: string): string[] {
  if (!text.trimStart().startsWith("[")) return text === "" ? [] : ["/bin/sh", "-c", text]
  const words: unknown = parsed(text)
  if (Array.isArray(words) && words.every((word) => typeof word === "string")) return words
  throw new AppError("invalid", `${option} is no JSON array of texts`, {
    hint: `write ${option} '["program", "argument"]', or a line for /bin/sh`,
  })
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
