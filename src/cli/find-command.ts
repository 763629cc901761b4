/** Finds the command that a command line names. Options before the name are kept as options of the command. */

import { suggest } from "../lib/suggest.ts"
import { asOption } from "./arguments.ts"
import type { CommandEntry, CommandTable } from "./command.ts"
import { WrongUsage } from "./wrong-usage.ts"

/** Names of our commands in other tools. */
const otherNames = new Map([
  ["delete", "destroy"],
  ["remove", "destroy"],
  ["new", "create"],
  ["run", "exec"],
  ["ssh", "shell"],
  ["attach", "shell"],
  ["console", "shell"],
  ["enter", "shell"],
  ["show", "inspect"],
  ["status", "inspect"],
  ["describe", "inspect"],
  ["pause", "stop"],
  ["resume", "start"],
  ["rename", "edit"],
  ["copy", "cp"],
  ["upload", "cp"],
  ["download", "cp"],
  ["push", "cp"],
  ["pull", "image pull"],
  ["sandbox", "list"],
  ["sandboxes", "list"],
  ["login", "setup"],
  ["config", "setup"],
  ["expose", "publish"],
  ["logs", "events"],
  ["fork", "create --from"],
  ["clone", "create --from"],
  ["file cat", "file read"],
  ["file put", "file write"],
  ["images", "image list"],
  ["image remove", "image delete"],
  ["image show", "image inspect"],
  ["image load", "image import"],
  ["secret add", "secret set"],
  ["secret create", "secret set"],
  ["snapshot restore", "snapshot resume"],
  ["snapshot save", "snapshot create"],
  ["user add", "user create"],
])

export type Found =
  | { kind: "command"; entry: CommandEntry; argv: string[] }
  /** `bhatti`, `bhatti help`, `bhatti --help`. */
  | { kind: "overview" }
  /** `bhatti user`, `bhatti user --help`. */
  | { kind: "group"; name: string; isAskedFor: boolean }

const optionsWithValue = ["--url", "--token", "--ca", "--data-dir"]
const optionsWithoutValue = ["--json"]

export function findCommand(table: CommandTable, argv: readonly string[]): Found {
  let start = 0
  while (argv[start]?.startsWith("-")) {
    const word = argv[start] ?? ""
    if (word === "-h" || word === "--help") return { kind: "overview" }
    if (word === "-v" || word === "--version") return named(table, "version", [])
    const [name = word] = word.split("=")
    if (![...optionsWithValue, ...optionsWithoutValue].includes(name)) {
      const similar = suggest(name, [...optionsWithValue, ...optionsWithoutValue, "--help", "--version"])
      const hint = similar === undefined ? "bhatti --help" : `did you mean ${similar}?`
      throw new WrongUsage(`unknown option${asOption(name)} before the command`, { hint })
    }
    start += optionsWithValue.includes(word) ? 2 : 1
  }
  const before = argv.slice(0, start)
  const [first, second, ...others] = argv.slice(start)
  if (first === undefined) {
    if (before.length === 0) return { kind: "overview" }
    throw new WrongUsage("a command is missing", { hint: "bhatti --help" })
  }
  if (first === "help" && second === undefined) return { kind: "overview" }
  const rest = second === undefined ? [] : [second, ...others]
  // A command may have a group of its own name: `mcp`, `mcp install`.
  const longer = second === undefined ? undefined : entryOf(table, `${first} ${second}`)
  if (longer !== undefined) return { kind: "command", entry: longer, argv: [...before, ...others] }
  const entry = entryOf(table, first)
  if (entry !== undefined) return { kind: "command", entry, argv: [...before, ...rest] }
  if (isGroup(table, first)) {
    if (second === undefined || second === "-h" || second === "--help")
      return { kind: "group", name: first, isAskedFor: second !== undefined }
    return named(table, `${first} ${second}`, [...before, ...others])
  }
  return named(table, first, [...before, ...rest])
}

export function entryOf({ shown, hidden }: CommandTable, name: string): CommandEntry | undefined {
  return [...shown, ...hidden].find((entry) => entry.name === name || entry.aliases?.includes(name))
}

export function isGroup({ shown }: CommandTable, name: string): boolean {
  return shown.some((entry) => entry.name.startsWith(`${name} `))
}

export function unknownCommand(table: CommandTable, name: string): WrongUsage {
  const [first = ""] = name.split(" ")
  const names = table.shown.flatMap((entry) => [entry.name, ...(entry.aliases ?? [])])
  const words = name.includes(" ")
    ? names
    : [...new Set(names.flatMap((one) => [one, one.split(" ")[0] ?? one]))]
  const similar = otherNames.get(name) ?? suggest(name, words)
  const help = isGroup(table, first) ? `bhatti ${first} --help` : "bhatti --help"
  return new WrongUsage(`unknown command "${name}"`, {
    hint: similar === undefined ? help : `did you mean bhatti ${similar}?`,
  })
}

function named(table: CommandTable, name: string, argv: string[]): Found {
  const entry = entryOf(table, name)
  if (entry === undefined) throw unknownCommand(table, name)
  return { kind: "command", entry, argv }
}
