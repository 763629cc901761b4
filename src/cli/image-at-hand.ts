/** The image of a create: pulled before if it is not here, as `--pull` says. */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import { followTask, resultOf } from "./follow-task.ts"
import type { Output } from "./output.ts"
import { credentialFor } from "./registry-credentials.ts"

export const pullOption = {
  type: "choice",
  value: "WHEN",
  choices: ["missing", "always", "never"],
  summary: "Pull the image if it is missing, always or never",
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
      if (pull === "never" || !isMissing(error)) throw error
      missing = error
    }
  }
  const pulled = await pullNow(context, image, isQuiet).catch((error: unknown) => {
    throw missing ? unnamedRegistry(error, { image, missing }) : error
  })
  return "exitCode" in pulled ? pulled : await make(pulled.image)
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
