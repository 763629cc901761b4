/** Standard input, as bytes or as text. A failed read has an error of its own, not one of the operation it was for. */

import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"

const lineBytesMax = 16 * 1024

export async function* readInput(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  try {
    for await (const bytes of Bun.stdin.stream()) yield bytes
  } catch (cause) {
    throw unreadable(cause)
  }
}

export async function readInputText(): Promise<string> {
  const bytes = await Bun.stdin.bytes().catch((cause: unknown) => {
    throw unreadable(cause)
  })
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new AppError("invalid", "standard input is not UTF-8 text", { cause })
  }
}

/** Reads `count` lines, or fewer if the input ends; does not wait for later input. */
export async function readLines(count: number): Promise<string[]> {
  const decoder = new TextDecoder()
  let text = ""
  for await (const bytes of readInput()) {
    text += decoder.decode(bytes, { stream: true })
    if (text.split("\n").length > count || text.length > lineBytesMax) break
  }
  const lines = text.split("\n")
  if (lines.at(-1) === "") lines.pop()
  return lines.slice(0, count)
}

function unreadable(cause: unknown): AppError {
  const reason = errorCodeOf(cause) ?? "unknown reason"
  return new AppError("unavailable", `cannot read standard input (${reason})`, { cause, retryable: false })
}
