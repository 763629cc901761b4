/** The user commands' way to the local database. */

import { defaultDataDir } from "../contract/limits.ts"
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
  const store = await operator.openStore({ dataDir: options.dataDir ?? defaultDataDir })
  await using closing = new AsyncDisposableStack()
  closing.defer(() => store.close())
  return await use(store.users)
}
