/**
 * Parses a command's arguments by its definition. Every refusal is a `WrongUsage`. An option may appear anywhere
 * before the guest's own command, which begins at its first word or after `--`.
 */

import { suggest } from "../lib/suggest.ts"
import type { Command, Option, Options, Rest } from "./command.ts"
import { durationExamples, durationSeconds } from "./duration.ts"
import { type Pairs, readLabels, readVariables } from "./pairs.ts"
import { WrongUsage } from "./wrong-usage.ts"

/** Accepted by every command. */
export const commonOptions = {
  json: { type: "flag", summary: "Print the daemon's reply as JSON, errors too" },
  url: { type: "text", value: "URL", summary: "Address of the daemon" },
  token: { type: "text", value: "KEY", summary: "API key" },
  ca: { type: "text", value: "FILE", summary: "Certificates to trust in place of the machine's, for https" },
  help: { type: "flag", short: "h", summary: "Show this help" },
} as const satisfies Options

export type CommonValues = {
  json: boolean
  url: string | undefined
  token: string | undefined
  ca: string | undefined
  help: boolean
}
type Value = string | number | boolean | string[] | Pairs | undefined

export type Parsed = {
  args: Record<string, string | undefined>
  rest: string[]
  options: Record<string, Value>
  common: CommonValues
}

export function optionFlag(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

export function parseArguments(command: Command, argv: readonly string[]): Parsed {
  const known: Options = { ...command.options, ...commonOptions }
  const values: Record<string, Value> = {}
  const words: string[] = []
  let behind: readonly string[] = []
  const argsCount = command.args?.length ?? 0
  const isVerbatimAfter = command.rest?.kind === "command" ? argsCount : Number.POSITIVE_INFINITY

  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? ""
    if (word === "--") {
      if (command.rest?.kind === "behind") behind = argv.slice(at + 1)
      else words.push(...argv.slice(at + 1))
      break
    }
    if (!word.startsWith("-") || word === "-") {
      if (words.length >= isVerbatimAfter) {
        words.push(...argv.slice(at))
        break
      }
      words.push(word)
      continue
    }
    for (const { name, flag, inline } of optionsIn(word, { command, known })) {
      const option = known[name]
      if (option === undefined) continue
      if (option.type === "flag") {
        if (inline !== undefined) throw usage(`${flag} takes no value`)
        values[name] = true
        continue
      }
      if (option.type === "switch") {
        const isNext = inline === undefined && Object.hasOwn(switchWords, argv[at + 1] ?? "")
        values[name] = readSwitch(flag, isNext ? argv[++at] : inline)
        continue
      }
      const text = inline ?? argv[++at]
      if (text === undefined || (inline === undefined && /^-[-a-zA-Z]/.test(text)))
        throw usage(`${flag} needs a value: ${flag} ${option.value}`)
      values[name] = readValue(option, { flag, text, earlier: values[name] })
    }
  }

  const common = {
    json: values.json === true,
    url: nonEmpty("--url", values.url),
    token: nonEmpty("--token", values.token),
    ca: nonEmpty("--ca", values.ca),
    help: values.help === true,
  }
  for (const [name, option] of Object.entries(known)) {
    if (option.type === "flag") values[name] ??= false
    if (option.type === "list") values[name] ??= []
  }
  const names = [...(command.args ?? []), ...(command.optionalArgs ?? [])]
  const args = Object.fromEntries(names.map((name, index) => [name, words[index]]))
  const rest = command.rest?.kind === "behind" ? [...behind] : words.slice(names.length)
  const parsed = { args, rest, options: values, common }
  if (!common.help) checkComplete(command, { parsed, words })
  return parsed
}

type Given = { name: string; flag: string; inline: string | undefined }

/** Splits one word into its options: `--name`, `--name=value`, `-x`, `-xvalue`, `-xyz`. */
function* optionsIn(
  word: string,
  { command, known }: { command: Command; known: Options },
): Generator<Given> {
  if (word.startsWith("--")) {
    const [flag = "", ...tail] = word.split("=")
    const name = Object.keys(known).find((one) => optionFlag(one) === flag)
    if (name === undefined) throw unknownOption(flag, { command, known })
    yield { name, flag, inline: tail.length === 0 ? undefined : tail.join("=") }
    return
  }
  for (let at = 1; at < word.length; at++) {
    const flag = `-${word[at]}`
    const entry = Object.entries(known).find(([, { short, otherShort }]) =>
      [short, otherShort].includes(word[at]),
    )
    if (entry === undefined) throw unknownOption(flag, { command, known, word })
    const takesValue = entry[1].type !== "flag"
    const tail = word.slice(at + 1).replace(/^=/, "")
    yield { name: entry[0], flag, inline: takesValue && tail !== "" ? tail : undefined }
    if (takesValue) return
  }
}

function readValue(
  option: Exclude<Option, { type: "flag" | "switch" }>,
  given: { flag: string; text: string; earlier: Value },
): Value {
  const { flag, text } = given
  switch (option.type) {
    case "text":
      return text
    case "list":
      return [...(Array.isArray(given.earlier) ? given.earlier : []), text]
    case "choice":
      if (option.choices.includes(text)) return text
      throw usage(`${flag} is one of ${option.choices.join(", ")}, not "${text}"`)
    case "integer":
      if (!/^[+-]?\d+$/.test(text)) throw usage(`${flag} takes a whole number, not "${text}"`)
      return inRange(Number(text), option, { flag, text, unit: "" })
    case "seconds":
      return inRange(
        readTimeAboveZero(flag, text),
        { min: 0, max: option.max },
        { flag, text, unit: " seconds" },
      )
    case "size":
      return inRange(readMib(flag, text), option, { flag, text, unit: " MB" })
    case "labels":
      return { ...pairsOf(given.earlier), ...readLabels(flag, text) }
    case "variables":
      return { ...pairsOf(given.earlier), ...readVariables(flag, text) }
  }
}

/** A switch takes the next word only if it is one of these: `edit --keep-hot dev` names a sandbox. */
export const switchWords: Readonly<Record<string, boolean>> = {
  on: true,
  off: false,
  true: true,
  false: false,
}

function readSwitch(flag: string, text = "on"): boolean {
  const value = Object.hasOwn(switchWords, text) ? switchWords[text] : undefined
  if (value === undefined) throw usage(`${flag} is on or off, not "${text}"`)
  return value
}

function inRange(
  value: number,
  range: { min: number; max: number },
  given: { flag: string; text: string; unit: string },
): number {
  if (value >= range.min && value <= range.max) return value
  throw usage(`${given.flag} must be between ${range.min} and ${range.max}${given.unit}, not ${given.text}`)
}

function readTimeAboveZero(flag: string, text: string): number {
  const seconds = durationSeconds(text)
  if (seconds !== undefined && seconds > 0) return seconds
  throw usage(`${flag} takes a time above 0 such as ${durationExamples}, not "${text}"`)
}

const mibPerUnit: Record<string, number> = { "": 1, m: 1, g: 1024, t: 1024 * 1024 }

function readMib(flag: string, text: string): number {
  const match = /^([+-]?\d+)([mgt]?)(?:i?b)?$/i.exec(text)
  if (match === null) throw usage(`${flag} takes a size such as 1024 (MB), 512M or 2G, not "${text}"`)
  return Number(match[1]) * (mibPerUnit[(match[2] ?? "").toLowerCase()] ?? 1)
}

function pairsOf(value: Value): Pairs {
  return typeof value === "object" && !Array.isArray(value) ? value : {}
}

function checkComplete(
  command: Command,
  { parsed, words }: { parsed: Parsed; words: readonly string[] },
): void {
  const { args = [], optionalArgs = [], rest, refuse, inputArg } = command
  const missing = args[words.length]
  if (missing !== undefined) throw usage(`${missing.toUpperCase()} is missing`)
  if (rest !== undefined && words.length < args.length + leastOf(rest))
    throw usage(`${rest.name.toUpperCase()} is missing`)
  const extra = words[args.length + optionalArgs.length]
  if ((rest === undefined || rest.kind === "behind") && extra !== undefined)
    throw usage(inputArg === undefined ? `unexpected argument "${extra}"` : "more words than it takes")
  for (const [at, name] of [...args, ...optionalArgs].entries())
    if (words[at] === "" && name !== inputArg) throw usage(emptyText(name))
  if (rest?.kind === "names" && parsed.rest.includes("")) throw usage(emptyText(rest.name))
  for (const [name, option] of Object.entries(command.options ?? {}))
    if ("isRequired" in option && parsed.options[name] === undefined)
      throw usage(`${optionFlag(name)} is missing`)
  const refusal = refuse?.({ ...parsed, options: parsed.options as never })
  if (refusal !== undefined) throw usage(refusal)
}

function leastOf({ kind, least = kind === "behind" ? 0 : 1 }: Rest): number {
  return Math.min(least, 1)
}

function emptyText(name: string): string {
  return name === "sandbox" ? "the sandbox's name is empty" : `${name.toUpperCase()} is empty`
}

/** Names of options in other tools. */
const otherFlags = new Map([["--disk-size", "--disk"]])

/** `word` has the option among its letters; it may be a long option with one dash. */
function unknownOption(
  flag: string,
  { command, known, word = "" }: { command: Command; known: Options; word?: string },
): WrongUsage {
  const flags = Object.keys(known).map(optionFlag)
  const other = otherFlags.get(flag)
  const long = flags.find((one) => one === `-${word.split("=")[0]}`)
  const meant = other !== undefined && flags.includes(other) ? other : (long ?? suggest(flag, flags))
  const isValue = command.inputArg !== undefined || asOption(flag) !== ` ${flag}`
  const value = "write -- before a word that begins with a dash"
  const hint = command.inputArg === undefined ? value : `${value}, or give it on standard input`
  return new WrongUsage(`unknown option${asOption(flag)}`, {
    ...(isValue && { hint }),
    ...(meant !== undefined && { hint: `did you mean ${meant}?` }),
  })
}

/** Returns a word that begins with a dash, cut to the part that looks like an option: the rest may be a secret key. */
export function asOption(word: string): string {
  const shown = /^(-[a-zA-Z]$|--[a-z]+(-[a-z]+)*)/.exec(word)?.[0].slice(0, 32)
  if (shown === undefined) return ""
  return shown === word ? ` ${shown}` : ` ${shown}...`
}

function usage(message: string): WrongUsage {
  return new WrongUsage(message)
}

/** Refuses an empty value, as of a variable that is not set: it must not fall back to another user's saved setting. */
function nonEmpty(flag: string, value: Value): string | undefined {
  if (value === "") throw usage(`${flag} is empty`)
  return typeof value === "string" ? value : undefined
}
