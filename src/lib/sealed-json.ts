/**
 * JSON that says of itself whether it is whole: its last field is a checksum of all others. It tells damage, and is no defence
 * against who can write the file.
 */

import { Checksum } from "./checksum.ts"
import { parseJson } from "./parse-json.ts"

const field = "checksum"

export function sealJson(value: Record<string, unknown>): string {
  return JSON.stringify({ ...value, [field]: checksumOf(value) }, null, 2)
}

/** Returns undefined if the text is not what was sealed. Text that was never sealed is taken as it is. */
export function openSealedJson(text: string): unknown {
  const value = parseJson(text)
  if (typeof value !== "object" || value === null || !(field in value)) return value
  const { [field]: checksum, ...rest } = value as Record<string, unknown>
  return checksum === checksumOf(rest) ? rest : undefined
}

function checksumOf(value: Record<string, unknown>): string {
  const sum = new Checksum()
  sum.add(Buffer.from(JSON.stringify(value)))
  return sum.value()
}
