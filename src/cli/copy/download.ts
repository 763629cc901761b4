/**
 * Copies from a sandbox to this host: files to a temporary name, then renamed; directories unpacked without
 * trusting the archive.
 */

import { join, posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { FileEntry } from "@bhatti/contract/file"
import { errorCodeOf } from "../../lib/error-code.ts"
import { tellingFate } from "../lost-sandbox.ts"
import type { Output } from "../output.ts"
import { printable } from "../words.ts"
import { type Copied, nothingCopied, sumOf, tellSkipped } from "./copied.ts"
import { placeFile, statIfAny } from "./local-file.ts"
import { findInGuest, type GuestPlace, type LocalPlace, meansContents, placeText } from "./place.ts"
import { Progress } from "./progress.ts"
import { type CopyContext, duringCopy } from "./upload.ts"

export async function download(
  sources: readonly GuestPlace[],
  target: LocalPlace | { kind: "standard" },
  context: CopyContext,
): Promise<Copied> {
  let copied = nothingCopied
  const here = target.kind === "standard" ? undefined : await localTarget(target.path, sources.length)
  for (const source of sources) {
    const one = await downloadOne(source, here, context)
    copied = sumOf(copied, one)
  }
  return copied
}

type LocalTarget = { path: string; isInto: boolean; isThere: boolean }

async function localTarget(path: string, sourcesCount: number): Promise<LocalTarget> {
  const found = await statIfAny(path)
  const isDirectory = found?.isDirectory() ?? false
  if (!isDirectory && (sourcesCount > 1 || path.endsWith("/")))
    throw new AppError("not_found", `${printable(path)} is not a directory`)
  return { path, isInto: isDirectory, isThere: found !== undefined }
}

async function downloadOne(
  source: GuestPlace,
  target: LocalTarget | undefined,
  context: CopyContext,
): Promise<Copied> {
  const found = await findInGuest(context.client, source)
  if (found === undefined) throw new AppError("not_found", `there is no ${printable(placeText(source))}`)
  const { path, entry } = found
  const from = {
    sandbox: source.sandbox,
    path,
    label: printable(placeText(source)),
    canBeSparse: entry.allocated !== undefined,
  }
  // The name as requested, which may be that of a link.
  const name = posix.basename(posix.resolve("/", source.path))
  return await tellingFate(source.sandbox, { client: context.client, during: duringCopy }, async () => {
    if (target === undefined) return await toOutput(from, { isDirectory: entry.is_dir }, context)
    const place = target.isInto ? join(target.path, name) : target.path
    if (!entry.is_dir)
      return isSparse(entry) ? await toTree(from, place, context) : await toFile(from, place, context)
    if (target.isThere && !target.isInto)
      throw new AppError("conflict", `${printable(target.path)} exists and is not a directory`)
    return await toTree(from, meansContents(source.path) ? target.path : place, context)
  })
}

type From = {
  sandbox: string
  path: string
  label: string
  /** The daemon and the agent know sparse archives. */
  canBeSparse: boolean
}

/** Holes that are worth an archive. */
const holesBytesMin = 1024 * 1024

function isSparse({ size, allocated }: FileEntry): boolean {
  return allocated !== undefined && size - allocated >= holesBytesMin
}

async function toOutput(
  from: From,
  options: { isDirectory: boolean },
  { client, out, signal }: CopyContext,
): Promise<Copied> {
  const input = { params: { id: from.sandbox }, query: { path: from.path }, signal }
  if (!options.isDirectory)
    return { entries: 1, bytes: await copyToOutput(await client.readFile(input), out), skipped: 0 }
  const { watchLeftOut } = await import("./left-out.ts")
  const told = { lines: [] as string[], count: 0 }
  const archive = watchLeftOut(received(await client.readArchive(input)), ({ lines, count }) => {
    told.lines.push(...lines)
    told.count += count
  })
  const bytes = await toStandardOutput(archive, out)
  await tellSkipped(out, told.lines, told.count)
  return { entries: 1, bytes, skipped: told.count }
}

export async function copyToOutput(
  response: Response,
  out: Output,
  channel: "stdout" | "stderr" = "stdout",
): Promise<number> {
  return await toStandardOutput(received(response), out, channel)
}

/** Waits for standard output to take each piece, so that no data accumulates here. */
async function toStandardOutput(
  pieces: AsyncIterable<Uint8Array<ArrayBuffer>>,
  out: Output,
  channel: "stdout" | "stderr" = "stdout",
): Promise<number> {
  let bytes = 0
  out[channel].prepare()
  for await (const piece of pieces) {
    bytes += piece.length
    await out[channel].write(piece)
  }
  return bytes
}

async function toFile(from: From, place: string, { client, out, signal }: CopyContext): Promise<Copied> {
  await using progress = new Progress(out, { label: from.label })
  const response = await client.readFile({
    params: { id: from.sandbox },
    query: { path: from.path },
    signal,
  })
  progress.totalBytes = Number(response.headers.get("x-file-size") ?? 0)
  const mode = Number.parseInt(response.headers.get("x-file-mode") ?? "0644", 8)
  let bytes = 0
  await placeFile(
    place,
    received(response, (count) => {
      bytes += count
      progress.count(count)
    }),
    { mode },
  )
  return { entries: 1, bytes, skipped: 0 }
}

/** Unpacks a directory, or a sparse file. */
async function toTree(from: From, root: string, { client, out, signal }: CopyContext): Promise<Copied> {
  await using progress = new Progress(out, { label: from.label })
  const response = await client.readArchive({
    params: { id: from.sandbox },
    query: { path: from.path, ...(from.canBeSparse && { sparse: "true" }) },
    signal,
  })
  const { unpackTree } = await import("./unpack.ts")
  const unpacked = await unpackTree(received(response, progress.count), root)
  const { skipped, skippedCount, ...copied } = unpacked
  await tellSkipped(out, skipped, skippedCount)
  return { ...copied, skipped: skippedCount }
}

/** The body; throws if it is cut short, so that a part is never taken for the whole. */
export async function* received(
  response: Response,
  onBytes: (bytes: number) => void = () => {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    for await (const piece of response.body ?? []) {
      onBytes(piece.length)
      yield piece
    }
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw new AppError(
      "unavailable",
      `the daemon aborted the transfer (${errorCodeOf(cause) ?? "no reason"})`,
      {
        cause,
      },
    )
  }
}
