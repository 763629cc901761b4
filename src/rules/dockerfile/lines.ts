/**
 * Splits a Dockerfile into its instructions: continued lines are joined, comments are left out, and the bodies of here
 * documents are taken from the lines that follow.
 */

import { DockerfileError } from "./refusal.ts"
import { splitWords } from "./words.ts"

export type Heredoc = {
  name: string
  /** Variables in it are replaced. */
  expands: boolean
  /** With the end of its last line. */
  body: string
}

export type Line = {
  /** Where it begins. */
  line: number
  keyword: string
  flags: { name: string; value: string | null }[]
  rest: string
  heredocs: Heredoc[]
}

export type Lines = { lines: Line[]; escapeChar: "\\" | "`" }

const instructionsMax = 1000
const heredocInstructions = new Set(["RUN", "COPY", "ADD"])
const flagInstructions = new Set(["RUN", "COPY", "ADD", "FROM", "HEALTHCHECK"])

export function splitLines(text: string): Lines {
  const source = text.replace(/^\uFEFF/, "").split(/\r?\n/)
  const { escapeChar, next } = readDirectives(source)
  const lines: Line[] = []
  for (let at = next; at < source.length; ) {
    if (isSkipped(source[at] ?? "")) {
      at++
      continue
    }
    const line = at + 1
    const joined = join(source, at, escapeChar)
    at = joined.next
    const parts = /^\s*(\S+)\s*([\s\S]*)$/.exec(joined.text)
    const keyword = (parts?.[1] ?? "").toUpperCase()
    const { flags, rest } = flagInstructions.has(keyword)
      ? takeFlags(parts?.[2] ?? "")
      : { flags: [], rest: parts?.[2] ?? "" }
    const heredocs: Heredoc[] = []
    if (heredocInstructions.has(keyword))
      for (const opening of openingsIn(rest, escapeChar)) {
        const read = readBody(source, at, { ...opening, line })
        heredocs.push(read.heredoc)
        at = read.next
      }
    lines.push({ line, keyword, flags, rest: rest.trimEnd(), heredocs })
    if (lines.length > instructionsMax)
      throw new DockerfileError(line, `there are more than ${instructionsMax} instructions`)
  }
  return { lines, escapeChar }
}

/** Lines such as `# escape=` before everything else. */
function readDirectives(source: readonly string[]): { escapeChar: "\\" | "`"; next: number } {
  let escapeChar: "\\" | "`" = "\\"
  let next = 0
  for (; next < source.length; next++) {
    const [, name, value] = /^\s*#\s*([A-Za-z]+)\s*=\s*(.*?)\s*$/.exec(source[next] ?? "") ?? []
    if (name === undefined) break
    if (name.toLowerCase() !== "escape") continue
    if (value !== "\\" && value !== "`")
      throw new DockerfileError(next + 1, `the escape character is \\ or \`, not ${value}`)
    escapeChar = value
  }
  return { escapeChar, next }
}

const isComment = (line: string) => /^\s*#/.test(line)
const isSkipped = (line: string) => line.trim() === "" || isComment(line)

function join(source: readonly string[], from: number, escapeChar: string): { text: string; next: number } {
  const continued = escapeChar === "\\" ? /\\[ \t]*$/ : /`[ \t]*$/
  let text = ""
  let at = from
  for (; at < source.length; at++) {
    const line = source[at] ?? ""
    if (at > from && isSkipped(line)) continue
    if (!continued.test(line)) return { text: text + line, next: at + 1 }
    text += line.replace(continued, "")
  }
  return { text, next: at }
}

function takeFlags(text: string): Pick<Line, "flags" | "rest"> {
  const flags: Line["flags"] = []
  let rest = text
  for (;;) {
    const [whole, name, value] = /^--([a-z][a-z-]*)(?:=("[^"]*"|\S*))?(?:\s+|$)/.exec(rest) ?? []
    if (whole === undefined || name === undefined) return { flags, rest }
    flags.push({ name, value: value?.replace(/^"(.*)"$/, "$1") ?? null })
    rest = rest.slice(whole.length)
  }
}

type Opening = { name: string; expands: boolean; stripsTabs: boolean }

function* openingsIn(text: string, escapeChar: string): Generator<Opening> {
  for (const word of splitWords(text, escapeChar)) {
    const [, strip, quote, name] = /^\d*<<(-?)(["']?)([^<"'\s]+)\2$/.exec(word) ?? []
    if (name !== undefined) yield { name, expands: quote === "", stripsTabs: strip === "-" }
  }
}

function readBody(
  source: readonly string[],
  from: number,
  { name, expands, stripsTabs, line }: Opening & { line: number },
): { heredoc: Heredoc; next: number } {
  let body = ""
  for (let at = from; at < source.length; at++) {
    const read = stripsTabs ? (source[at] ?? "").replace(/^\t+/, "") : (source[at] ?? "")
    if (read === name) return { heredoc: { name, expands, body }, next: at + 1 }
    body += `${read}\n`
  }
  throw new DockerfileError(line, `the here document "${name}" has no end`, `end it with a line "${name}"`)
}
