/**
 * JSON with a checksum of all other fields as its last field. It detects corruption. Not a defence against someone who
 * can write the file.
 */

import { Checksum } from "./checksum.ts"
import { parseJson } from "./parse-json.ts"

const field = "checksum"

export function sealJson(value: Record<string, unknown>): string {
  return JSON.stringify({ ...value, [field]: checksumOf(value) }, null, 2)
}

/** Returns undefined if the text does not match its checksum. Text without a checksum is accepted. */
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
