/** The image of a create: if it is not here, the host makes it or it is pulled before, as `--pull` says. */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import { followTask, resultOf } from "./follow-task.ts"
import type { Output } from "./output.ts"
import { credentialFor } from "./registry-credentials.ts"

export const pullOption = {
  type: "choice",
  value: "WHEN",
  choices: ["missing", "always", "never"],
  summary: "Pull the image, or have the host make its own, if it is missing; always pull, or never",
  fallback: "missing",
} as const
type Pull = (typeof pullOption.choices)[number]

type Context = { client: Client; out: Output }
type Wanted = { image: string | undefined; pull: Pull | undefined; isQuiet: boolean }

/** Returns what `make` returns for the image, or the exit code of the signal that ended the pull. */
export async function withImage<Made>(
  context: Context,
  { image, pull = "missing", isQuiet }: Wanted,
  make: (image: string | undefined) => Promise<Made>,
): Promise<Made | { exitCode: number }> {
  if (image === undefined) return await make(image)
  let missing: AppError | undefined
  if (pull !== "always") {
    try {
      return await make(image)
    } catch (error) {
      if (pull === "never" || !(error instanceof AppError) || error.code !== "not_found") throw error
      const made = await makeNow(context, { image, isQuiet, missing: error })
      if (made) return "exitCode" in made ? made : await make(image)
      if (!isMissing(error)) throw error
      missing = error
    }
  }
  const pulled = await pullNow(context, image, isQuiet).catch((error: unknown) => {
    throw missing ? unnamedRegistry(error, { image, missing }) : error
  })
  return "exitCode" in pulled ? pulled : await make(pulled.image)
}

/** Returns undefined if it is no image of the host, or may not be made. */
async function makeNow(
  { client, out }: Context,
  { image, isQuiet, missing }: { image: string; isQuiet: boolean; missing: AppError },
): Promise<{ image: string } | { exitCode: number } | undefined> {
  // An error about the installation names an image only if the host could have it.
  if (missing.subject?.kind !== "installation" || missing.subject.image !== image) return undefined
  const started = await client.installHostImage({ params: { name: image } }).catch((error: unknown) => {
    if (error instanceof AppError && ["forbidden", "not_found"].includes(error.code)) return undefined
    throw error
  })
  if (started === undefined) return undefined
  if (started.task_id === null) return { image }
  if (!isQuiet)
    await out.talk(`image ${image} is made first, once for all users of the host; this takes minutes`)
  const task = await followTask({ client, out }, started.task_id, { isQuiet, isCancelledBySignals: true })
  return "exitCode" in task ? task : { image: resultOf(task).image }
}

/** A plain name is rather a mistyped image than one of a registry that nobody has named; one with a tag is not. */
function unnamedRegistry(error: unknown, { image, missing }: { image: string; missing: AppError }): unknown {
  if (!(error instanceof AppError) || error.reason !== "no_default_registry") return error
  if (!/[:/@]/.test(image)) return missing
  return error.but({ hint: [error.hint, missing.hint].filter((hint) => hint !== undefined).join("; ") })
}

function isMissing(error: unknown): error is AppError {
  if (!(error instanceof AppError) || error.code !== "not_found") return false
  return error.subject === undefined || error.subject.kind === "image"
}

async function pullNow(
  { client, out }: Context,
  ref: string,
  isQuiet: boolean,
): Promise<{ image: string } | { exitCode: number }> {
  const auth = await credentialFor({ client, out }, ref)
  const started = await client.pullImage({ body: { ref, ...(auth !== undefined && { auth }) } })
  if (started.task_id === null) return { image: started.image }
  if (!isQuiet) await out.talk(`image ${ref} is pulled first`)
  const task = await followTask({ client, out }, started.task_id, { isQuiet, isCancelledBySignals: true })
  return "exitCode" in task ? task : { image: resultOf(task).image }
}
