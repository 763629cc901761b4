/** Reads a request's body as text, within the bound that all surfaces have. */

import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"

const bytesMax = limits.requestBodyBytesMax

/** Reads to the end, even if the endpoint takes no body: until then the request is incomplete. */
export async function readBody(request: Request, body: AsyncIterable<Uint8Array>): Promise<string> {
  if ((declaredLength(request) ?? 0) > bytesMax) throw tooLarge()
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks))
  } catch (cause) {
    throw new AppError("invalid", "the request's body is not UTF-8", { cause })
  }
}

export function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length")
  return header === null ? undefined : Number(header)
}

function tooLarge(): AppError {
  return new AppError("too_large", `the request's body is larger than ${bytesMax} bytes`)
}
