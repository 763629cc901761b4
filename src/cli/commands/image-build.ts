/** `bhatti image build`. */

import { readFile, stat } from "node:fs/promises"
import { join, resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../../lib/error-code.ts"
import { buildBody, ignoreRulesOf, packDirectory } from "../build-directory.ts"
import { command } from "../command.ts"
import { followStarted, resultOf } from "../follow-task.ts"
import { sizeOptions } from "../sandbox-size.ts"
import { readInputText } from "../standard-input.ts"
import { secondsText } from "../words.ts"

export const imageBuild = command({
  args: ["directory"],
  description: `Builds an image of the DIRECTORY's Dockerfile. Each step runs in a sandbox of yours, with your limits and your rules of the network;
its result is kept, so that a later build begins at the first step that has changed. .dockerignore names what is not sent.

The whole file is checked before anything runs; an instruction that is not supported is an error with its line. Ctrl-C cancels the build.`,
  options: {
    tag: { type: "text", short: "t", value: "NAME", summary: "Name of the image", isRequired: true },
    file: {
      type: "text",
      short: "f",
      value: "FILE",
      summary: "The Dockerfile, - for standard input (default: DIRECTORY/Dockerfile)",
    },
    buildArg: {
      type: "list",
      value: "NAME[=VALUE]",
      summary: "Value of an ARG; without a value that of your environment. May be repeated",
    },
    secret: {
      type: "list",
      value: "id=ID[,src=FILE|,env=NAME]",
      summary: "A file for RUN --mount=type=secret, in memory only. May be repeated",
    },
    target: { type: "text", value: "STAGE", summary: "Stage to end with (default: the last)" },
    noCache: { type: "flag", summary: "Run every step" },
    cpus: { ...sizeOptions.cpus, summary: "Number of vCPUs of the builders" },
    memory: { ...sizeOptions.memory, summary: "Memory of the builders, in MB or as 1G" },
    noPrepare: { type: "flag", summary: "Make no template; the first create waits for it" },
    detach: {
      type: "flag",
      short: "d",
      summary: "Print the task's id once the directory is sent, and do not wait",
    },
    quiet: { type: "flag", short: "q", summary: "Print only the name, and no progress" },
  },
  examples: [
    "bhatti image build -t app .",
    "bhatti image build -t app:test -f test.Dockerfile --build-arg VERSION=1.4 .",
    "bhatti image build -t app --secret id=token,src=token.txt --target release .",
  ],
  async run({ client, args, options, isJson, out }) {
    const startMs = performance.now()
    const { directory } = args
    const isDirectory = await stat(directory).then(
      (found) => found.isDirectory(),
      () => false,
    )
    if (!isDirectory) throw new AppError("invalid", `${directory} is not a directory`)
    const path = options.file === "-" ? undefined : (options.file ?? join(directory, "Dockerfile"))
    const dockerfile = path === undefined ? await readInputText() : await readText(path)
    const asked = {
      name: options.tag,
      dockerfile,
      args: argumentsOf(options.buildArg),
      secrets: await secretsOf(options.secret),
      target: options.target ?? null,
      no_cache: options.noCache,
      prepare: !options.noPrepare,
      ...{ cpus: options.cpus, memory_mb: options.memory },
    }
    const rules = await ignoreRulesOf(directory, path)
    const started = await client.buildImage({
      bytes: buildBody(asked, packDirectory(resolve(directory), rules)),
    })
    const how = { isDetached: options.detach, isQuiet: options.quiet, isJson }
    const task = await followStarted({ client, out }, started, how)
    if ("exitCode" in task) return task.exitCode
    const { image } = resultOf(task)
    if (isJson) return await out.json(task)
    if (options.quiet) return await out.result(image)
    await out.result(`image/${image} built in ${secondsText(performance.now() - startMs)}`)
    await out.hint(`  try: bhatti create --image ${image}`)
  },
})

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8")
  } catch (cause) {
    throw new AppError("invalid", `cannot read ${path} (${errorCodeOf(cause)})`, {
      cause,
      hint: "-f FILE names a Dockerfile at another place",
    })
  }
}

/** As in Docker, a name alone takes the value of this program's environment, and is left out without one. */
function argumentsOf(words: readonly string[]): Record<string, string> {
  const pairs = words.map((word) => {
    const at = word.indexOf("=")
    return at < 0 ? [word, process.env[word]] : [word.slice(0, at), word.slice(at + 1)]
  })
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined))
}

async function secretsOf(words: readonly string[]): Promise<Record<string, string>> {
  const secrets: Record<string, string> = {}
  for (const word of words) {
    const options = new Map(
      word.split(",").map((part) => [part.split("=")[0], part.slice(part.indexOf("=") + 1)]),
    )
    const id = options.get("id")
    if (id === undefined || id === "")
      throw new AppError("invalid", `--secret ${word} has no id`, { hint: "write --secret id=ID,src=FILE" })
    const file = options.get("src") ?? options.get("source")
    const variable = options.get("env") ?? (file === undefined ? id : undefined)
    const value = file === undefined ? process.env[variable ?? ""] : await readText(file)
    if (value === undefined)
      throw new AppError("invalid", `--secret ${word}: there is no variable ${variable}`, {
        hint: "write --secret id=ID,src=FILE",
      })
    secrets[id] = value
  }
  return secrets
}
