/** Files of a form (`multipart/form-data`), one after the other, as they arrive. */

import type { Readable } from "node:stream"
import { AppError } from "@bhatti/contract/errors"
import { Busboy, type BusboyHeaders, type BusboyInstance } from "@fastify/busboy"

export type FormFile = { name: string; bytes: AsyncIterable<Uint8Array> }

const limits = { files: 10_000, fields: 100, parts: 10_100, fieldSize: 65_536, headerPairs: 100 }

/** The reader takes each file's bytes before it asks for the next file. */
export async function* filesInForm(
  contentType: string,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<FormFile> {
  const parser = parserOf(contentType)
  const waiting: FormFile[] = []
  let over: { error: unknown } | "finished" | undefined
  let wake = Promise.withResolvers<void>()
  const tell = () => {
    wake.resolve()
    wake = Promise.withResolvers()
  }
  const end = (how: NonNullable<typeof over>) => {
    over ??= how
    tell()
  }
  const damaged = (cause: unknown) => end({ error: unreadable(cause) })
  // The parser leaves a file open whose body ends early.
  let current: Readable | undefined
  parser.on("file", (field: string, stream: Readable, filename: string | undefined) => {
    current = stream
    stream.on("error", damaged)
    if (field !== "file") return void stream.resume()
    waiting.push({ name: nameOf(filename), bytes: bytesOf(stream) })
    tell()
  })
  parser.on("filesLimit", () => end({ error: new AppError("invalid", "the form has too many files") }))
  parser.on("partsLimit", () => end({ error: new AppError("invalid", "the form has too many parts") }))
  parser.on("error", damaged)
  parser.on("finish", () => end("finished"))
  void feed(parser, body, () => over !== undefined).catch((error: unknown) => {
    end({ error })
    current?.destroy(error as Error)
    parser.destroy(error as Error)
  })
  try {
    for (;;) {
      const next = waiting.shift()
      if (next) yield next
      else if (over === "finished") return
      else if (over) throw over.error
      else await wake.promise
    }
  } finally {
    over ??= "finished"
    current?.destroy()
    parser.destroy()
  }
}

/** An error of the form ends the file too. */
async function* bytesOf(stream: Readable): AsyncGenerator<Uint8Array> {
  try {
    yield* stream
  } catch (error) {
    throw unreadable(error)
  }
}

function unreadable(cause: unknown): AppError {
  return cause instanceof AppError ? cause : new AppError("invalid", "the form cannot be read", { cause })
}

async function feed(
  parser: BusboyInstance,
  body: AsyncIterable<Uint8Array>,
  isOver: () => boolean,
): Promise<void> {
  for await (const piece of body) {
    if (isOver()) return
    await new Promise<void>((resolve, reject) => {
      parser.write(piece, (error: unknown) => (error ? reject(error) : resolve()))
    })
  }
  parser.end()
}

function parserOf(contentType: string): BusboyInstance {
  try {
    const headers: BusboyHeaders = { "content-type": contentType }
    return new Busboy({ headers, preservePath: true, limits })
  } catch (cause) {
    throw new AppError("invalid", "the body is neither a form nor application/octet-stream", { cause })
  }
}

/** A browser replaces three characters of a name. Returns "" for a file without a name. */
function nameOf(filename: string | undefined): string {
  return (filename ?? "").replaceAll("%22", '"').replaceAll("%0D", "\r").replaceAll("%0A", "\n")
}
