/** The options for variables that `create` and `exec` share, and their help text. */

import type { Pairs } from "./pairs.ts"

export const envFileOption = {
  type: "list",
  value: "FILE",
  summary: "File with a NAME=VALUE on each line; may be repeated, and --env wins",
} as const

export const envText: string = `--env takes NAME=VALUE and may be repeated; a later one wins. It takes several at once where a NAME in capitals follows each comma:
\`--env A=1,B=2\`. Every other comma belongs to the value: \`--env LIST=a,b\` and \`--env 'DSN=host=db,port=5432'\` are one variable
each. bhatti refuses a text that can be read either way, such as \`--env a=1,b=2\`. --env-file takes any value as it is: all that follows NAME= on its line,
without the quotes around it.`

export async function envOf(options: {
  env: Pairs | undefined
  envFile: readonly string[]
}): Promise<Pairs | undefined> {
  if (options.envFile.length === 0) return options.env
  const { readEnv } = await import("./env-file.ts")
  return await readEnv(options.envFile, options.env)
}
