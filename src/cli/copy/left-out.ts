/**
 * How a directory's archive lists files that the sandbox could not pack: it contains an entry for its top directory
 * a second time; see `LeftOut` in the agent's messages.
 */

import { posix } from "node:path"
import { type Header, extract as newExtract } from "tar-stream"
import { parseJson } from "../../lib/parse-json.ts"
import { printable } from "../words.ts"

export type LeftOut = {
  count: number
  /** A line for each named file; if there are many, not all are named. */
  lines: string[]
}

/** Reads the entry of the archive's top directory; returns undefined if it lists nothing. */
export function leftOutOf(header: Header): LeftOut | undefined {
  const records = header.pax as Record<string, unknown> | null | undefined
  const comment = records?.["comment"]
  const told = typeof comment === "string" ? parseJson(comment) : undefined
  if (typeof told !== "object" || told === null || !("left_out" in told) || !("names" in told))
    return undefined
  const { left_out: count, names } = told
  if (!Number.isSafeInteger(count) || !Array.isArray(names)) return undefined
  return { count: Math.max(0, Number(count)), lines: names.filter(isNamed).map(lineOf) }
}

type Named = { name: unknown; reason: unknown }

function isNamed(one: unknown): one is Named {
  return typeof one === "object" && one !== null && "name" in one && "reason" in one
}

function lineOf({ name, reason }: Named): string {
  const [, ...parts] = String(name).replace(/\/+$/, "").split("/")
  return `${printable(parts.join("/") || ".")}: ${printable(String(reason))}`
}

/**
 * Passes an archive through unchanged and calls `found` with the list. Invalid archives pass too: their reader will
 * report it.
 */
export async function* watchLeftOut(
  archive: AsyncIterable<Uint8Array<ArrayBuffer>>,
  found: (leftOut: LeftOut) => void,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const extract = newExtract()
  let wake = () => {}
  for (const event of ["drain", "close"] as const) extract.on(event, () => wake())
  extract.on("error", () => undefined)
  extract.on("entry", (header, content, next) => {
    const isTop = !posix.normalize(header.name).replace(/\/+$/, "").includes("/")
    const leftOut = isTop ? leftOutOf(header) : undefined
    if (leftOut) found(leftOut)
    content.on("end", next)
    content.resume()
  })
  try {
    for await (const piece of archive) {
      const { promise, resolve } = Promise.withResolvers<void>()
      wake = resolve
      if (!extract.destroyed && !extract.write(piece)) await promise
      yield piece
    }
  } finally {
    extract.destroy()
  }
}
