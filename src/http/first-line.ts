/** The first line of a body, before bytes of another kind. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"

const newline = 10

/** `rest` goes on behind the line; it is read once. */
export async function firstLineOf(
  body: AsyncIterable<Uint8Array>,
): Promise<{ first: string; rest: AsyncIterable<Uint8Array> }> {
  const pieces = body[Symbol.asyncIterator]()
  let read = Buffer.alloc(0)
  for (;;) {
    const end = read.indexOf(newline)
    if (end >= 0) {
      const first = textOf(read.subarray(0, end))
      return { first, rest: goOn(read.subarray(end + 1), pieces) }
    }
    if (read.length > 2 * limits.requestBodyBytesMax)
      throw new AppError("too_large", "the first line of the body is too long")
    const { done, value } = await pieces.next()
    if (done) return { first: textOf(read), rest: goOn(Buffer.alloc(0), pieces) }
    read = Buffer.concat([read, value])
  }
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new AppError("invalid", "the first line of the body is not UTF-8", { cause })
  }
}

async function* goOn(
  read: Uint8Array,
  pieces: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (read.length > 0) yield read
  for (;;) {
    const { done, value } = await pieces.next()
    if (done) return
    yield value
  }
}
