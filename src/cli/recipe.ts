/**
 * The image of a recipe, a Dockerfile or a script with `#!`: built when its content is new, and found again by a key.
 */

import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import { errorCodeOf } from "../lib/error-code.ts"
import { buildBody, emptyDirectory, ignoreRulesOf, packDirectory } from "./build-directory.ts"
import { followTask, resultOf } from "./follow-task.ts"
import type { Output } from "./output.ts"
import { WrongUsage } from "./wrong-usage.ts"

type Recipe = { file: string; key: string | undefined; base: string | undefined; isQuiet: boolean }

const keyPattern = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/

/** Returns the exit code of the signal that ended the build. */
export async function imageOfRecipe(
  { client, out }: { client: Client; out: Output },
  { file, key, base, isQuiet }: Recipe,
): Promise<{ image: string } | { exitCode: number }> {
  const text = await readRecipe(file)
  const isScript = text.startsWith("#!")
  if (base !== undefined && !isScript)
    throw new WrongUsage("--image is for a recipe that is a script; a Dockerfile names its own")
  const dockerfile = isScript ? scriptAsDockerfile(text, base ?? limits.imageDefault) : text
  if (key !== undefined && !keyPattern.test(key))
    throw new WrongUsage("--cache-key has up to 63 letters, digits, dots, dashes and underscores")
  const name = `recipe-${(key ?? createHash("sha256").update(dockerfile).digest("hex").slice(0, 16)).toLowerCase()}`
  if (key !== undefined && (await isThere(client, name))) return { image: name }
  const directory = isScript
    ? emptyDirectory()
    : packDirectory(dirname(resolve(file)), await ignoreRulesOf(dirname(resolve(file)), file))
  const started = await client.buildImage({ bytes: buildBody({ name, dockerfile }, directory) })
  const task = await followTask({ client, out }, started.task_id ?? "", {
    ...{ isQuiet, isCancelledBySignals: true },
  })
  return "exitCode" in task ? task : { image: resultOf(task).image }
}

async function readRecipe(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8")
  } catch (cause) {
    throw new AppError("invalid", `cannot read ${file} (${errorCodeOf(cause)})`, { cause })
  }
}

async function isThere(client: Client, name: string): Promise<boolean> {
  try {
    await client.getImage({ params: { name } })
    return true
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return false
    throw error
  }
}

/** The script is a here document, whose end no line of it is. */
function scriptAsDockerfile(text: string, base: string): string {
  let end = "RECIPE"
  while (text.split("\n").includes(end)) end += "_"
  return `FROM ${base}\nRUN <<'${end}'\n${text.replace(/\n?$/, "\n")}${end}\n`
}
