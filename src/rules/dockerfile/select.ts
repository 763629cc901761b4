/** Which entries of a build's directory an instruction copies, and where to. */

import { hasWildcard, patternOf } from "../../lib/path-pattern.ts"
import { DockerfileError } from "./refusal.ts"

export type Selectable = {
  path: string
  kind: "file" | "directory" | "link"
  link: string | null
}

/** `to` is below the target; with a single file that has none, the target is its name, unless it is a directory. */
export type Selected<Entry> = { entry: Entry; to: string }
export type Selection<Entry> = {
  items: Selected<Entry>[]
  /** The target is a directory, whatever is there. */
  isInto: boolean
}

const linksMax = 40

export function select<Entry extends Selectable>(
  entries: ReadonlyMap<string, Entry>,
  { sources, target, line }: { sources: readonly string[]; target: string; line: number },
): Selection<Entry> {
  const items = new Map<string, Selected<Entry>>()
  let isInto = target.endsWith("/") || target === "/"
  for (const source of sources) {
    const found = matching(entries, source, line)
    if (found.length > 1 && !isInto)
      throw new DockerfileError(line, `"${source}" is several files, and the target does not end in a slash`)
    for (const path of found) {
      const entry = path === "" ? undefined : followed(entries, path, line)
      if (entry === undefined || entry.kind === "directory") {
        isInto = true
        for (const below of under(entries, entry?.path ?? "")) items.set(below.to, below)
      } else {
        const to = path.split("/").at(-1) ?? path
        items.set(to, { entry, to })
      }
    }
  }
  return { items: [...items.values()].sort((a, b) => (a.to < b.to ? -1 : 1)), isInto }
}

function matching(entries: ReadonlyMap<string, Selectable>, source: string, line: number): string[] {
  const parts = source.split("/").filter((part) => part !== "" && part !== ".")
  if (parts.includes("..")) throw new DockerfileError(line, `"${source}" leads out of the build's directory`)
  const path = parts.join("/")
  if (path === "" || entries.has(path)) return [path]
  const found = hasWildcard(path) ? [...entries.keys()].filter(matcherOf(path, line)) : []
  if (found.length > 0) return found
  throw new DockerfileError(
    line,
    `"${source}" is not in the build's directory`,
    "a file that .dockerignore names is left out",
  )
}

function matcherOf(pattern: string, line: number): (path: string) => boolean {
  try {
    const expression = patternOf(pattern)
    return (path) => expression.test(path)
  } catch (error) {
    throw new DockerfileError(
      line,
      `"${pattern}" is no pattern: ${error instanceof Error ? error.message : error}`,
    )
  }
}

/** A link that an instruction names itself is followed. */
function followed<Entry extends Selectable>(
  entries: ReadonlyMap<string, Entry>,
  path: string,
  line: number,
): Entry | undefined {
  let at = path
  for (let count = 0; count < linksMax; count++) {
    const entry = entries.get(at)
    if (entry === undefined && at !== "")
      throw new DockerfileError(line, `"${path}" is a link to a file that is not in the build's directory`)
    if (entry?.kind !== "link") return entry
    const target = entry.link ?? ""
    const parts = target.startsWith("/") ? [] : at.split("/").slice(0, -1)
    for (const part of target.split("/")) {
      if (part === "..") parts.pop()
      else if (part !== "" && part !== ".") parts.push(part)
    }
    at = parts.join("/")
  }
  throw new DockerfileError(line, `"${path}" is a link that leads to itself`)
}

function* under<Entry extends Selectable>(
  entries: ReadonlyMap<string, Entry>,
  directory: string,
): Generator<Selected<Entry>> {
  const prefix = directory === "" ? "" : `${directory}/`
  for (const [path, entry] of entries)
    if (path.startsWith(prefix) && path !== "") yield { entry, to: path.slice(prefix.length) }
}
