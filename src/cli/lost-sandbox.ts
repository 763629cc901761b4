/** What became of a sandbox with which a connection was lost: a stop and a destroy look like any other loss from here. */

import type { Client } from "../client/client.ts"
import { AppError } from "../contract/errors.ts"

export async function fateOf(sandbox: string, client: Client): Promise<"stopped" | "destroyed" | undefined> {
  try {
    const { status } = await client.getSandbox({ params: { id: sandbox } })
    // The connection goes first, the rest follows.
    if (status === "stopping" || status === "stopped") return "stopped"
    return status === "destroying" ? "destroyed" : undefined
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    return error.code === "not_found" ? "destroyed" : undefined
  }
}
