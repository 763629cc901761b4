/**
 * `bhatti __complete` completes the word at the cursor, one candidate per line. Runs at every press of Tab, so it
 * waits for the daemon only briefly and fails silently.
 */

import type { Client } from "@bhatti/sdk/client"
import { commonOptions, optionFlag, switchWords } from "../arguments.ts"
import { type Command, type CommandTable, hostCommand, type Options } from "../command.ts"
import { entryOf, isGroup } from "../find-command.ts"
import { type GivenSettings, loadSettings } from "../settings.ts"
import { connectTo } from "../transport.ts"

const answerMs = 700

export const complete = hostCommand({
  rest: { name: "word", kind: "command" },
  examples: ["bhatti __complete -- exec d"],
  async run({ rest, given, table, out }) {
    const before = rest.slice(0, -1)
    const typed = rest.at(-1) ?? ""
    const names = new Names(async () =>
      connectTo(await loadSettings({ ...given, ...settingsIn(before) }, process.env)),
    )
    const found = await candidates(before, typed, { table, names })
    const fitting = [...new Set(found)].filter((one) => one.startsWith(typed))
    if (fitting.length > 0) await out.result(fitting.join("\n"))
  },
})

const settingFlags = new Map<string, keyof GivenSettings>([
  ["--url", "url"],
  ["--token", "token"],
  ["--ca", "ca"],
])

/** The daemon's settings given on the line itself. */
function settingsIn(before: readonly string[]): Partial<GivenSettings> {
  const found: Partial<GivenSettings> = {}
  for (const [index, word] of before.entries()) {
    if (word === "--") break
    const [flag = "", ...value] = word.split("=")
    const name = settingFlags.get(flag)
    if (name !== undefined) found[name] = value.length > 0 ? value.join("=") : before[index + 1]
  }
  return found
}

async function candidates(
  before: readonly string[],
  typed: string,
  { table, names }: { table: CommandTable; names: Names },
): Promise<string[]> {
  const { name, rest } = splitCommand(table, before)
  const entry = name === undefined ? undefined : entryOf(table, name)
  if (entry === undefined) {
    if (name !== undefined && !isGroup(table, name)) return []
    if (name !== undefined) return secondWords(table, name)
    return typed.startsWith("-") ? flagsOf(commonOptions) : firstWords(table)
  }
  const command = await entry.load()
  const known = { ...command.options, ...commonOptions }
  const { words, awaited } = readWords(rest, known)
  if (awaited !== undefined) return await valuesOf(awaited, known, names)
  const place = words.length
  const isGuests = command.rest?.kind === "command" && place > (command.args?.length ?? 0)
  if (isGuests || rest.includes("--"))
    return await argumentsAt(command, words, { name: entry.name, table, names })
  if (typed.startsWith("-")) return flagsOf(known)
  return await argumentsAt(command, words, { name: entry.name, table, names })
}

function splitCommand(
  table: CommandTable,
  before: readonly string[],
): { name: string | undefined; rest: readonly string[] } {
  let at = 0
  while (before[at]?.startsWith("-")) at += settingFlags.has(before[at] ?? "") ? 2 : 1
  const [first, second] = [before[at], before[at + 1]]
  if (first !== undefined && isGroup(table, first) && second !== undefined)
    return { name: `${first} ${second}`, rest: before.slice(at + 2) }
  return { name: first, rest: before.slice(at + 1) }
}

/** Returns the arguments so far, and the option whose value comes next. */
function readWords(
  rest: readonly string[],
  known: Options,
): { words: string[]; awaited: string | undefined } {
  const words: string[] = []
  let awaited: string | undefined
  let isAfterSwitch = false
  for (const word of rest) {
    const isOfSwitch = isAfterSwitch && Object.hasOwn(switchWords, word)
    isAfterSwitch = false
    if (awaited !== undefined) awaited = undefined
    else if (isOfSwitch) continue
    else if (!word.startsWith("-")) words.push(word)
    else {
      const option = Object.entries(known).find(
        ([name, { short }]) => optionFlag(name) === word || `-${short}` === word,
      )
      isAfterSwitch = option?.[1].type === "switch"
      if (option !== undefined && option[1].type !== "flag" && !isAfterSwitch) awaited = option[0]
    }
  }
  return { words, awaited }
}

async function valuesOf(name: string, known: Options, names: Names): Promise<string[]> {
  const option = known[name]
  if (option?.type === "choice") return [...option.choices]
  if (name === "from" || name === "sandbox") return await names.sandboxes()
  return name === "secret" ? await names.secrets() : []
}

async function argumentsAt(
  command: Command,
  words: readonly string[],
  context: { name: string; table: CommandTable; names: Names },
): Promise<string[]> {
  const { name, table, names } = context
  const kinds = [...(command.args ?? []), ...(command.optionalArgs ?? [])]
  const kind = kinds[words.length] ?? command.rest?.name
  switch (kind) {
    case "sandbox":
      return await names.sandboxes()
    case "snapshot":
      return await names.snapshots()
    case "session":
      return await names.processes(words[0] ?? "", { isTyped: true })
    case "process":
      return await names.processes(words[0] ?? "", { isTyped: false })
    case "shell":
      return ["bash", "zsh", "fish"]
    case "name":
      return name.startsWith("secret ") ? await names.secrets() : []
    case "path":
      return name === "cp" ? (await names.sandboxes()).map((one) => `${one}:`) : []
    case "command":
      return name === "help" ? firstWords(table) : []
    default:
      return []
  }
}

function firstWords(table: CommandTable): string[] {
  return table.shown.map(({ name }) => name.split(" ")[0] ?? name)
}

function secondWords(table: CommandTable, group: string): string[] {
  return table.shown.flatMap(({ name }) =>
    name.startsWith(`${group} `) ? [name.slice(group.length + 1)] : [],
  )
}

function flagsOf(options: Options): string[] {
  return Object.keys(options).map(optionFlag)
}

/** Names that only the daemon knows; empty if it does not answer in time or fails. */
class Names {
  readonly #connect: () => Promise<Client>

  constructor(connectLater: () => Promise<Client>) {
    this.#connect = connectLater
  }

  sandboxes(): Promise<string[]> {
    return this.#ask(async (client, signal) =>
      (await client.listSandboxes({ signal })).map(({ name }) => name),
    )
  }

  /** Names, or ids of those without one; with `isTyped` only of sessions. */
  processes(sandbox: string, { isTyped }: { isTyped: boolean }): Promise<string[]> {
    return this.#ask(async (client, signal) => {
      const all = await client.listProcesses({ params: { id: sandbox }, signal })
      const wanted = all.filter(({ kind }) => !isTyped || kind === "session")
      return wanted.map(({ process_id, name }) => name ?? process_id)
    })
  }

  snapshots(): Promise<string[]> {
    return this.#ask(async (client, signal) =>
      (await client.listSnapshots({ signal })).map(({ name }) => name),
    )
  }

  secrets(): Promise<string[]> {
    return this.#ask(async (client, signal) => (await client.listSecrets({ signal })).map(({ name }) => name))
  }

  async #ask(question: (client: Client, signal: AbortSignal) => Promise<string[]>): Promise<string[]> {
    const asked = this.#connect().then((client) => question(client, AbortSignal.timeout(answerMs)))
    return await asked.catch(() => [])
  }
}
