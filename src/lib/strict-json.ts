/**
 * JSON without ambiguity. `JSON.parse` keeps the last of two members with one name where other parsers keep the first,
 * and accepts unpaired surrogates, which later layers cannot store; both are refused here.
 * The engine parses; this scans the text once more. Libraries that do both parse ten times slower, or accept duplicate
 * members.
 */

import { AppError } from "@bhatti/contract/errors"

/** Twice as deep as anything that clients send. */
const depthMax = 64

const quote = 0x22
const backslash = 0x5c
const colon = 0x3a
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

export function parseStrictJson(text: string): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new AppError("invalid", "it is not valid JSON", { cause })
  }
  checkMembers(text)
  // Raw text is always well-formed; unpaired surrogates can only be written as escapes.
  const where = text.includes("\\u") ? brokenString(value) : undefined
  if (where === undefined) return value
  const place = where.length === 0 ? "" : `${where.join(".")}: `
  throw new AppError("invalid", `${place}an unpaired surrogate (half of a character) is not valid text`)
}

/** Throws if a name is repeated or the nesting is too deep. The text must be valid JSON. */
function checkMembers(text: string): void {
  /** The names of each open object; undefined for an array. */
  const open: (Set<string> | undefined)[] = []
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case openBrace:
      case openBracket:
        if (open.length === depthMax) throw new AppError("invalid", "the JSON is nested too deeply")
        open.push(text.charCodeAt(at) === openBrace ? new Set() : undefined)
        break
      case closeBrace:
      case closeBracket:
        open.pop()
        break
      case quote: {
        const end = endOfString(text, at)
        if (isName(text, end)) {
          const written = text.slice(at, end)
          const name = written.includes("\\") ? String(JSON.parse(written)) : written.slice(1, -1)
          const names = open.at(-1)
          if (names?.has(name)) throw new AppError("invalid", `"${name}" appears twice in one object`)
          names?.add(name)
        }
        at = end - 1
      }
    }
  }
}

/** Returns the position after the closing quotation mark of the string that begins at `at`. */
function endOfString(text: string, at: number): number {
  for (let end = at + 1; ; end++) {
    end = text.indexOf('"', end)
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return end + 1
  }
}

/** Returns whether the string that ends there is a member's name. */
function isName(text: string, end: number): boolean {
  let at = end
  while (text.charCodeAt(at) <= 0x20) at++
  return text.charCodeAt(at) === colon
}

/** Returns the path of a string with an unpaired surrogate. */
function brokenString(value: unknown): string[] | undefined {
  if (typeof value === "string") return value.isWellFormed() ? undefined : []
  if (typeof value !== "object" || value === null) return undefined
  for (const [name, member] of Object.entries(value)) {
    if (!name.isWellFormed()) return [name.toWellFormed()]
    const within = brokenString(member)
    if (within) return [name, ...within]
  }
  return undefined
}
