/** Reads the variables of `--env-file`, which are lines of a local file. Loaded only when one is given. */

import { limits } from "@bhatti/contract/limits"
import { localFailure } from "./copy/local-file.ts"
import { type Pairs, variableName, variableNameRule } from "./pairs.ts"
import { bytesText } from "./words.ts"
import { WrongUsage } from "./wrong-usage.ts"

/** Limit above that of the variables, since comments take space too. */
const fileBytesMax = 4 * limits.envBytesMax

/**
 * Reads the files in order, then `--env`: a later variable wins. An error in a file counts as wrong usage of the
 * command.
 */
export async function readEnv(files: readonly string[], given: Pairs | undefined): Promise<Pairs> {
  const read: Pairs[] = []
  for (const path of files) read.push(parseEnvFile(await readText(path), path))
  return Object.assign({}, ...read, given)
}

async function readText(path: string): Promise<string> {
  let bytes: Uint8Array
  try {
    bytes = await Bun.file(path)
      .slice(0, fileBytesMax + 1)
      .bytes()
  } catch (error) {
    throw new WrongUsage(localFailure(path, error).message)
  }
  if (bytes.length > fileBytesMax) throw new WrongUsage(`${path} has more than ${bytesText(fileBytesMax)}`)
  return Buffer.from(bytes).toString()
}

/**
 * A line is NAME=VALUE; the value is everything that follows, including commas and #; quotes around the whole value
 * are removed. Empty lines and lines that begin with # are ignored.
 */
export function parseEnvFile(text: string, path: string): Pairs {
  const variables: Pairs = {}
  for (const [index, line] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const place = `${path}, line ${index + 1}`
    const pair = /^\s*(?:export\s+)?([^=\s]*)=(.*)$/s.exec(line)
    if (pair === null) throw new WrongUsage(`${place} is not NAME=VALUE`)
    const [, name = "", value = ""] = pair
    if (!variableName.test(name))
      throw new WrongUsage(`${place}: "${name}" cannot be a variable's name`, {
        hint: variableNameRule,
      })
    variables[name] = unquoted(value, place)
  }
  return variables
}

function unquoted(value: string, place: string): string {
  const trimmed = value.trim()
  const quote = trimmed[0]
  if (quote !== '"' && quote !== "'") return value
  if (trimmed.length > 1 && trimmed.endsWith(quote)) return trimmed.slice(1, -1)
  // Quotes in the middle belong to the value, as in "a" and "b".
  if (trimmed.slice(1).includes(quote)) return value
  throw new WrongUsage(`${place}: the quote that begins the value must end on its line`)
}
