/** The command line of the benchmark. */

import { parseArgs } from "node:util"

export type BenchOptions = {
  rounds: number
  warmUps: number
  budgetMs: number
  /** Names of groups; empty means all. */
  only: string[]
  binary: string | undefined
  jsonPath: string | undefined
  withPodman: boolean
  /** End with exit code 1 when a ratio that is promised is missed. */
  check: boolean
}

/** `groups` are all there are. */
export const usage = (groups: readonly string[]) => `usage: bun run bench [options]

  --quick         few rounds: a look, not a result
  -n ROUNDS       rounds per measurement (default 100, with --quick 10)
  --only GROUPS   ${groups.join(", ")}; several with commas
  --binary FILE   the bhatti to measure (default dist/bhatti)
  --json FILE     write everything that was measured
  --check         a minute of ratios within one run: exit code 1 when one is missed; times are never checked
  --no-podman     leave out the comparison`

/** `checked` are the groups that `--check` measures. Throws with a sentence for the person who typed it. */
export function parseOptions(
  argv: string[],
  groups: readonly string[],
  checked: readonly string[],
): BenchOptions | "help" {
  const { values } = parseArgs({
    args: argv,
    options: {
      quick: { type: "boolean", default: false },
      rounds: { type: "string", short: "n" },
      only: { type: "string", default: "" },
      binary: { type: "string" },
      json: { type: "string" },
      check: { type: "boolean", default: false },
      "no-podman": { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  })
  if (values.help) return "help"
  const isShort = values.quick || values.check
  const rounds = Number(values.rounds ?? (isShort ? 10 : 100))
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 10_000)
    throw new Error("-n is a number from 1 to 10000")
  const named = values.only.split(",").filter((name) => name !== "")
  const only = values.check && named.length === 0 ? [...checked] : named
  const unknown = only.find((name) => !groups.includes(name))
  if (unknown !== undefined)
    throw new Error(`no group "${unknown}" to measure; there are ${groups.join(", ")}`)
  return {
    rounds,
    warmUps: isShort ? 1 : 3,
    budgetMs: isShort ? 60_000 : 300_000,
    only,
    binary: values.binary,
    jsonPath: values.json,
    withPodman: !values["no-podman"],
    check: values.check,
  }
}
