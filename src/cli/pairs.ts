/**
 * `--env` and `--label`: KEY=VALUE, or several separated by commas. A value may contain commas too, so each option
 * has a rule for where a comma ends a pair. Errors name variables and never show values, which may be keys.
 */

import { WrongUsage } from "./wrong-usage.ts"

export type Pairs = Record<string, string>

/** A usual variable name in capitals. Such text behind a comma begins another variable. */
const capitalName = /^[A-Z_][A-Z0-9_]*=/
const anyName = /^\s*[A-Za-z_][A-Za-z0-9_]*=/
export const variableName: RegExp = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/
export const variableNameRule = "a name has up to 128 letters, digits and underscores, and no digit first"

/**
 * Several variables only if NAME= in capitals follows every comma: `A=1,B=2`. A single variable, commas included,
 * if other text follows: `LIST=a,b`, `DSN=host=db,port=5432`. Refused if both readings are likely: `a=1,b=2`,
 * `A=1,b=2,C=3`, `A=1, B=2`.
 */
export function readVariables(flag: string, text: string): Pairs {
  const [first = "", ...later] = text.split(",")
  if (later.length === 0 || !later.every((part) => anyName.test(part))) return oneVariable(flag, text)
  if (later.every((part) => capitalName.test(part)))
    return Object.assign({}, ...[first, ...later].map((part) => oneVariable(flag, part)))
  const unclear =
    later.find((part) => capitalName.test(part.trim())) ?? (capitalName.test(first) ? undefined : later[0])
  if (unclear === undefined) return oneVariable(flag, text)
  const [whole] = Object.keys(oneVariable(flag, text))
  const name = unclear.slice(0, unclear.indexOf("=")).trim()
  throw new WrongUsage(
    `${flag} is unclear: ${name} can be a variable of its own, or a part of ${whole}'s value`,
    {
      hint: `for two variables write ${flag} ${whole}=... ${flag} ${name}=...; for one put it into a file: --env-file FILE`,
    },
  )
}

function oneVariable(flag: string, text: string): Pairs {
  const equals = text.indexOf("=")
  if (equals <= 0)
    throw new WrongUsage(`${flag} takes KEY=VALUE pairs; the value that was given names no variable`)
  const name = text.slice(0, equals)
  if (variableName.test(name)) return { [name]: text.slice(equals + 1) }
  throw new WrongUsage(`${flag}: "${name}" cannot be a variable's name`, { hint: variableNameRule })
}

/** Several only if every part is KEY=VALUE. */
export function readLabels(flag: string, text: string): Pairs {
  const labels: Pairs = {}
  const parts = text.split(",")
  for (const pair of parts.every((part) => /^[A-Za-z0-9_./-]+=/.test(part)) ? parts : [text]) {
    const equals = pair.indexOf("=")
    if (equals <= 0) throw new WrongUsage(`${flag} takes KEY=VALUE pairs, not "${pair}"`)
    labels[pair.slice(0, equals)] = pair.slice(equals + 1)
  }
  return labels
}
