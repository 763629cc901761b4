/** Explains a lost connection to a sandbox: on this side a stop and a destroy look like any other loss. */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"

/** Returns true if the daemon has given the reason; one of an earlier version does not. */
export function isExplained({ reason }: AppError): boolean {
  return reason !== undefined && reason !== "channel_lost"
}

export async function fateOf(sandbox: string, client: Client): Promise<"stopped" | "destroyed" | undefined> {
  try {
    const params = { id: sandbox }
    const { status } = await client.getSandbox({ params })
    // The connection is lost first, the state changes later.
    if (status === "stopping") return "stopped"
    // A sandbox that failed to start was stopped before, and the error says why it stays stopped.
    if (status === "stopped")
      return (await client.whySandbox({ params })).failed_starts ? undefined : "stopped"
    return status === "destroying" ? "destroyed" : undefined
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return error.code === "not_found" ? "destroyed" : undefined
  }
}

/** Runs work in a sandbox. If it fails because the sandbox was stopped or destroyed, the error says so. */
export async function tellingFate<Result>(
  sandbox: string,
  options: { client: Client; during: string },
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "unavailable") throw error
    throw await whyLost(error, sandbox, options)
  }
}

export async function whyLost(
  error: AppError,
  sandbox: string,
  { client, during }: { client: Client; during: string },
): Promise<AppError> {
  if (isExplained(error)) return error
  const fate = await fateOf(sandbox, client)
  if (fate === undefined) return error
  return new AppError(error.code, `the sandbox "${sandbox}" was ${fate} ${during}`, { cause: error })
}
