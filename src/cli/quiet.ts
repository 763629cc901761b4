/** The option `-q` prints only names, one per line, for `$(...)` and xargs. */

import type { Output } from "./output.ts"

export const quietOption = { type: "flag", short: "q", summary: "Print only names" } as const

export async function printNames(out: Output, named: readonly { name: string }[]): Promise<void> {
  for (const { name } of named) await out.result(name)
}
