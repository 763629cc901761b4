/** Gives the user commands access to the local database. */

import { stat } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { defaultDataDir } from "@bhatti/contract/limits"
import { errorCodeOf } from "../lib/error-code.ts"
import { leadsNowhere } from "../lib/missing-files.ts"
import type { Options } from "./command.ts"
import type { Operator, UserStore } from "./operator.ts"

export const dataDirOption = {
  dataDir: { type: "text", value: "DIR", summary: "The daemon's data directory", fallback: defaultDataDir },
} as const satisfies Options

export async function withUserStore<Result>(
  operator: Operator,
  options: { dataDir: string | undefined },
  use: (users: UserStore["users"]) => Promise<Result>,
): Promise<Result> {
  return await withStore(operator, options, (store) => use(store.users))
}

export async function withStore<Result>(
  operator: Operator,
  options: { dataDir: string | undefined },
  use: (store: UserStore) => Promise<Result>,
): Promise<Result> {
  const store = await openStore(operator, options.dataDir ?? defaultDataDir)
  await using closing = new AsyncDisposableStack()
  closing.defer(() => store.close())
  return await use(store)
}

async function openStore(operator: Operator, dataDir: string): Promise<UserStore> {
  try {
    // Opening creates missing files, so a mistyped directory would get its own database. A directory that lost its
    // database gets an error that says so.
    await stat(join(dataDir, "bhatti.db")).catch(() => stat(join(dataDir, "installation.json")))
    return await operator.openStore({ dataDir })
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    const code = errorCodeOf(cause)
    if (leadsNowhere(cause))
      throw new AppError("not_found", `there is no bhatti database in ${dataDir}`, {
        cause,
        hint: `sudo bhatti init --data-dir ${dataDir}`,
      })
    throw new AppError(
      "unavailable",
      `cannot open the database in ${dataDir} (${code ?? "unknown reason"})`,
      {
        cause,
        hint: "users are managed by the operator, on the daemon's host, with sudo",
        retryable: false,
      },
    )
  }
}
