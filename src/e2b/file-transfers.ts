/** Contents of files: the plain HTTP part of e2b's agent. */

import { posix } from "node:path"
import { pipeline, Readable } from "node:stream"
import { createGunzip } from "node:zlib"
import { AppError } from "@bhatti/contract/errors"
import type { GuestAttributes } from "@bhatti/contract/guest"
import { openFile, setAttributes, writeFile } from "../core/files.ts"
import { declaredLength } from "../gate/read-body.ts"
import type { Caller } from "./caller.ts"
import { metadataOf, metadataPrefix, statAt } from "./file-entries.ts"
import { placeOf } from "./file-paths.ts"
import { filesInForm } from "./form-files.ts"

type Written = { path: string; name: string; type: "file"; metadata?: Record<string, string> }
type Body = AsyncIterable<Uint8Array>

/**
 * Opens a file. The body is undefined for an empty one; an error before the first byte is thrown. `signal` ends the
 * guest's transfer, also while nobody reads.
 */
export async function readAt(
  caller: Caller,
  path: string,
  signal: AbortSignal,
): Promise<{ headers: Record<string, string>; body: Body | undefined }> {
  const { core, account, sandbox } = caller
  const place = await placeOf(caller, path)
  const download = await openFile(core, account, sandbox, { op: "readFile", path: place })
  download.result.catch(() => undefined)
  const close = () => download.close()
  signal.addEventListener("abort", close, { once: true })
  if (signal.aborted) close()
  const pieces = download.output[Symbol.asyncIterator]()
  const first = await pieces.next().catch((error: unknown) => {
    close()
    throw error
  })
  const name = encodeURIComponent(posix.basename(place))
  const headers = {
    "content-type": "application/octet-stream",
    "content-disposition": `inline; filename*=utf-8''${name}`,
  }
  if (first.done) {
    await download.result
    return { headers, body: undefined }
  }
  const body = async function* () {
    try {
      yield first.value
      for (;;) {
        const { done, value } = await pieces.next()
        if (done) break
        yield value
      }
      await download.result
    } finally {
      signal.removeEventListener("abort", close)
      close()
    }
  }
  return { headers, body: body() }
}

/** Writes the files of a request's body, each as a whole, in their order. */
export async function writeAt(
  caller: Caller,
  request: Request,
  options: { path: string | null; body: Body; signal: AbortSignal },
): Promise<Written[]> {
  const { headers } = request
  const { signal } = options
  const attributes = attributesIn(headers)
  const type = headers.get("content-type") ?? ""
  const encoding = headers.get("content-encoding") ?? "identity"
  if (encoding !== "identity" && encoding !== "gzip")
    throw new AppError("invalid", `content-encoding ${encoding} is not supported`)
  const isPlain = encoding === "identity"
  const body = isPlain ? options.body : unzipped(options.body)
  if (type.startsWith("application/octet-stream")) {
    if (!options.path) throw new AppError("invalid", "the query names no path")
    const size = isPlain ? declaredLength(request) : undefined
    return [await write(caller, options.path, { body, size, attributes, signal })]
  }
  const written: Written[] = []
  for await (const part of filesInForm(type, body)) {
    const path = options.path || part.name
    if (!path) throw new AppError("invalid", "a file of the form has no name, and the query names no path")
    written.push(await write(caller, path, { body: part.bytes, size: undefined, attributes, signal }))
  }
  if (written.length === 0) throw new AppError("invalid", "the form has no part named file")
  return written
}

async function write(
  caller: Caller,
  path: string,
  content: { body: Body; size: number | undefined; attributes: GuestAttributes; signal: AbortSignal },
): Promise<Written> {
  const { core, account, sandbox, user } = caller
  const { attributes } = content
  const place = await placeOf(caller, path)
  const upload = { ...content, path: place, mode: undefined, owner: user }
  await writeFile(core, account, sandbox, upload)
  const had = Object.keys((await statAt(caller, place)).attributes ?? {})
  // A write replaces all metadata.
  const remove = had.filter((name) => name.startsWith(metadataPrefix) && !(name in attributes))
  if (remove.length > 0) await setAttributes(core, account, sandbox, { path: place, set: {}, remove })
  const metadata = metadataOf(attributes)
  const isBare = Object.keys(metadata).length === 0
  return { path: place, name: posix.basename(place), type: "file", ...(!isBare && { metadata }) }
}

const metadataHeader = "x-metadata-"

function attributesIn(headers: Headers): GuestAttributes {
  const own = [...headers].filter(([name]) => name.startsWith(metadataHeader))
  return Object.fromEntries(
    own.map(([name, value]) => [
      `${metadataPrefix}${name.slice(metadataHeader.length).toLowerCase()}`,
      Buffer.from(value),
    ]),
  )
}

async function* unzipped(body: Body): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip()
  // An error of the body ends the reader below.
  pipeline(Readable.from(body), gunzip, () => undefined)
  try {
    yield* gunzip
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw new AppError("invalid", "the body is not compressed as its header says", { cause })
  } finally {
    gunzip.destroy()
  }
}
