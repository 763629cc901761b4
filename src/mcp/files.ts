/** The tool `file`: text of a file by lines, a whole write, and the entries of a directory. */

import { AppError } from "@bhatti/contract/errors"
import type { FileEntry } from "@bhatti/contract/file"
import type { Call } from "./call.ts"
import { wholeCharacters } from "./cut-output.ts"
import type { FileInput } from "./tool-inputs.ts"

const readBytesMax = 32_000
const entriesMax = 500
const newline = 10

export async function file(call: Call, input: FileInput): Promise<string> {
  const { client, signal } = call
  const { sandbox, path, content, mode } = input
  const params = { id: sandbox }
  switch (input.action) {
    case "read":
      return await read(call, input)
    case "write": {
      if (content === undefined) throw new AppError("invalid", "action write needs content")
      const query = { path, ...(mode !== undefined && { mode }) }
      await client.writeFile({ params, query, bytes: content, signal })
      return `wrote ${Buffer.byteLength(content)} bytes to ${path}`
    }
    case "list": {
      const { entries, isTruncated } = await client.listFiles(sandbox, path)
      if (entries.length === 0) return `${path} is empty`
      const left = entries.length - entriesMax
      const rest = left > 0 || isTruncated ? [`[more entries; to see them: exec ls ${path}]`] : []
      return [...entries.slice(0, entriesMax).map(entryLine), ...rest].join("\n")
    }
  }
}

/** Asks for a byte more than it shows, and so knows if there is a rest. */
async function read({ client, signal }: Call, { sandbox, path, line, lines }: FileInput): Promise<string> {
  const first = Math.max(line ?? 1, 1)
  const query = { path, offset: first, limit: lines || undefined, max_bytes: readBytesMax + 1 }
  const response = await client.readFile({ params: { id: sandbox }, query, signal })
  const bytes = Buffer.from(await (response as Response).arrayBuffer())
  if (bytes.includes(0))
    return `${path} is no text; use exec with base64, xxd or a program that knows its format`
  if (bytes.length <= readBytesMax) return bytes.toString("utf8")
  const shown = bytes.subarray(0, readBytesMax)
  const end = shown.lastIndexOf(newline) + 1
  if (end === 0) {
    const part = shown.toString("utf8", 0, wholeCharacters(shown))
    return `${part}\n[line ${first} goes on; to read it: exec sed -n ${first}p ${path} | cut -b ${wholeCharacters(shown) + 1}-]`
  }
  const text = shown.toString("utf8", 0, end)
  return `${text}[the file goes on; to read it: line=${first + text.split("\n").length - 1}]`
}

function entryLine({ name, type, size, mode, target }: FileEntry): string {
  const mark = type === "directory" ? "/" : type === "symlink" ? ` -> ${target}` : ""
  return `${mode} ${type === "file" ? size : "-"} ${name}${mark}`
}
