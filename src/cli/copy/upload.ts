/**
 * Copies from this host into a sandbox: single files, each written completely; directories and larger files as a
 * tar stream.
 */

import { realpath } from "node:fs/promises"
import { basename, posix, resolve } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { Client } from "@bhatti/sdk/client"
import { tellingFate } from "../lost-sandbox.ts"
import type { Output } from "../output.ts"
import { readInput } from "../standard-input.ts"
import { printable } from "../words.ts"
import { byteStream } from "./byte-stream.ts"
import { type Copied, nothingCopied, sumOf, tellSkipped } from "./copied.ts"
import { localStep, openLocal, piecesOf, statIfAny } from "./local-file.ts"
import { packTree } from "./pack.ts"
import {
  findInGuest,
  type GuestPlace,
  guestPath,
  type LocalPlace,
  meansContents,
  placeText,
} from "./place.ts"
import { Progress } from "./progress.ts"

export const duringCopy = "during the transfer"

/** `owner` owns the copies in the sandbox; the default user if omitted. */
export type CopyContext = { client: Client; out: Output; signal: AbortSignal; owner?: string | undefined }

export async function upload(
  sources: readonly (LocalPlace | { kind: "standard" })[],
  target: GuestPlace,
  context: CopyContext,
): Promise<Copied> {
  const found = await findInGuest(context.client, target)
  const isDirectory = found?.entry.is_dir ?? false
  if (found !== undefined && !isDirectory && (sources.length > 1 || target.path.endsWith("/")))
    throw notADirectory(target)
  const isInto = isDirectory || target.path.endsWith("/") || sources.length > 1
  const place = { sandbox: target.sandbox, path: found?.path ?? guestPath(target.path) }
  let copied = nothingCopied
  for (const source of sources) {
    const one = await tellingFate(target.sandbox, { client: context.client, during: duringCopy }, () =>
      source.kind === "standard"
        ? uploadInput(place, { isInto }, context)
        : uploadPath(source.path, place, { isInto, isThere: found !== undefined, isDirectory }, context),
    )
    copied = sumOf(copied, one)
  }
  return copied
}

type Into = { sandbox: string; path: string }

async function uploadPath(
  source: string,
  place: Into,
  target: { isInto: boolean; isThere: boolean; isDirectory: boolean },
  context: CopyContext,
): Promise<Copied> {
  const found = await statIfAny(source)
  if (found === undefined) throw new AppError("not_found", `there is no ${printable(source)} here`)
  const name = basename(resolve(source))
  const path = target.isInto ? posix.join(place.path, name) : place.path
  if (!found.isDirectory()) {
    return found.size <= limits.fileBytesMax
      ? await uploadFile(source, { ...place, path }, {}, context)
      : await uploadTree(
          source,
          { ...place, path, totalBytes: Math.min(found.size, found.blocks * 512) },
          context,
        )
  }
  if (target.isThere && !target.isDirectory) throw notADirectory({ kind: "guest", ...place })
  if (meansContents(source)) return await uploadTree(source, { ...place, path: `${place.path}/.` }, context)
  return await uploadTree(source, { ...place, path }, context)
}

/** Uploads one file; refuses a file above the daemon's limit before sending any data. */
export async function uploadFile(
  source: string,
  place: Into,
  options: { mode?: string | undefined },
  { client, out, signal, owner }: CopyContext,
): Promise<Copied> {
  const file = await openLocal(source, { isLinkFollowed: true })
  await using closing = new AsyncDisposableStack()
  closing.defer(() => file.handle.close())
  const { bytesCount } = file
  if (bytesCount > limits.fileBytesMax) throw tooLarge(source, place)
  await using progress = new Progress(out, { label: printable(basename(source)), totalBytes: bytesCount })
  await client.writeFile({
    params: { id: place.sandbox },
    query: { path: place.path, mode: options.mode ?? file.mode, ...ownedBy(owner) },
    bytes: byteStream(piecesOf(file, source), progress.count),
    bytesCount,
    signal,
  })
  return { entries: 1, bytes: bytesCount, skipped: 0 }
}

/** Uploads standard input, whose length is unknown; the daemon refuses input above its limit and writes nothing. */
export async function uploadInput(
  place: Into,
  options: { isInto: boolean; mode?: string | undefined },
  { client, out, signal, owner }: CopyContext,
): Promise<Copied> {
  if (options.isInto)
    throw new AppError("invalid", `${place.sandbox}:${place.path} is a directory; standard input has no name`)
  let bytes = 0
  await using progress = new Progress(out, { label: "standard input" })
  await client.writeFile({
    params: { id: place.sandbox },
    query: {
      path: place.path,
      ...(options.mode === undefined ? {} : { mode: options.mode }),
      ...ownedBy(owner),
    },
    bytes: byteStream(readInput(), (count) => {
      bytes += count
      progress.count(count)
    }),
    signal,
  })
  return { entries: 1, bytes, skipped: 0 }
}

/** A path that ends in `/.` means the contents of the directory. */
async function uploadTree(
  source: string,
  place: Into & { totalBytes?: number },
  context: CopyContext,
): Promise<Copied> {
  const { client, out, signal } = context
  const isContents = place.path.endsWith("/.")
  const path = isContents ? place.path.slice(0, -1) : posix.dirname(place.path)
  // A link named as the source is followed; links below it are copied as links.
  const real = await localStep(source, () => realpath(source))
  const packed = packTree(real, isContents ? "" : posix.basename(place.path))
  const label = printable(basename(resolve(source)))
  await using progress = new Progress(out, { label, totalBytes: place.totalBytes })
  const { entries, bytes } = await client.writeArchive({
    params: { id: place.sandbox },
    query: { path, ...ownedBy(context.owner) },
    bytes: byteStream(packed.stream, progress.count),
    signal,
  })
  await tellSkipped(out, packed.skipped)
  return { entries, bytes, skipped: packed.skipped.length }
}

function ownedBy(owner: string | undefined): { owner?: string } {
  return owner === undefined ? {} : { owner }
}

function notADirectory(place: GuestPlace): AppError {
  return new AppError("conflict", `${printable(placeText(place))} is not a directory`)
}

function tooLarge(source: string, place: Into): AppError {
  return new AppError("too_large", `a file has at most ${limits.fileBytesMax / 1024 / 1024} MB here`, {
    hint: `bhatti cp ${source} ${place.sandbox}:${place.path}`,
  })
}
