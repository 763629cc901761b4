/**
 * Local files as streams. Writes go to a temporary file beside the target, which is renamed, so that a partial file
 * is never visible.
 */

import { constants } from "node:fs"
import { type FileHandle, open, rename, stat, unlink } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../../lib/error-code.ts"
import { randomHex } from "../../lib/random-hex.ts"
import type { Part } from "./sparse.ts"

const pieceBytes = 128 * 1024

export type LocalFile = { handle: FileHandle; bytesCount: number; blocks: number; mode: string }

/** Permissions as the daemon accepts them, without set-user-id and the like. */
export function modeText(mode: number): string {
  return `0${(mode & 0o777).toString(8).padStart(3, "0")}`
}

export async function openLocal(path: string, options: { isLinkFollowed: boolean }): Promise<LocalFile> {
  const flags =
    constants.O_RDONLY | constants.O_NONBLOCK | (options.isLinkFollowed ? 0 : constants.O_NOFOLLOW)
  const handle = await localStep(path, () => open(path, flags))
  const found = await handle.stat()
  if (found.isFile())
    return { handle, bytesCount: found.size, blocks: found.blocks, mode: modeText(found.mode) }
  await handle.close()
  throw new AppError("invalid", `${path} is not a file`)
}

/** Yields exactly the counted bytes: a file that grows is cut, a file that shrinks is an error. */
export async function* piecesOf(
  { handle, bytesCount }: Pick<LocalFile, "handle" | "bytesCount">,
  path: string,
  from = 0,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let left = bytesCount; left > 0; ) {
    const piece = new Uint8Array(Math.min(pieceBytes, left))
    const place = from + bytesCount - left
    const { bytesRead } = await localStep(path, () => handle.read(piece, 0, piece.length, place))
    if (bytesRead === 0) throw becameShorter(path)
    left -= bytesRead
    yield piece.subarray(0, bytesRead)
  }
}

export function becameShorter(path: string): AppError {
  return new AppError("conflict", `${path} has become shorter while it was copied`)
}

/** Writes a complete file or, on failure, leaves the old one or none. */
export async function placeFile(
  path: string,
  content: AsyncIterable<Part>,
  options: { mode: number },
): Promise<void> {
  const beside = besideName(path)
  await using undo = new AsyncDisposableStack()
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  const handle = await localStep(path, () => open(beside, flags, options.mode & 0o777))
  undo.defer(() => unlink(beside))
  let isClosed = false
  undo.defer(async () => {
    if (!isClosed) await handle.close()
  })

  await writeParts(handle, content, path)
  isClosed = true
  await localStep(path, () => handle.close())
  await localStep(path, () => rename(beside, path))
  undo.move()
}

/** A unique name in the same directory. */
export function besideName(path: string): string {
  return join(dirname(path), `.${basename(path).slice(0, 100)}.${randomHex(8)}.part`)
}

/** Skips zeros, so that the file is sparse there. */
async function writeParts(handle: FileHandle, content: AsyncIterable<Part>, path: string): Promise<void> {
  let at = 0
  let written = 0
  for await (const part of content) {
    if ("hole" in part) {
      at += part.hole
      continue
    }
    for (let start = 0; start < part.length; start += zeros.length) {
      const piece = part.subarray(start, start + zeros.length)
      if (piece.length < holeBytesMin || !isZero(piece)) {
        await writeAll(handle, { piece, at }, path)
        written = at + piece.length
      }
      at += piece.length
    }
  }
  const end = at
  if (end > written) await localStep(path, () => handle.truncate(end))
}

const holeBytesMin = 4096
const zeros = new Uint8Array(64 * 1024)

function isZero(piece: Uint8Array): boolean {
  return Buffer.compare(piece, zeros.subarray(0, piece.length)) === 0
}

async function writeAll(
  handle: FileHandle,
  { piece, at }: { piece: Uint8Array; at: number },
  path: string,
): Promise<void> {
  for (let start = 0; start < piece.length; ) {
    const place = start
    const { bytesWritten } = await localStep(path, () =>
      handle.write(piece, place, piece.length - place, at + place),
    )
    start += bytesWritten
  }
}

export async function statIfAny(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (errorCodeOf(error) === "ENOENT") return undefined
    throw localFailure(path, error)
  }
}

/** Runs one step on the local file system and turns a failure into an error message. */
export async function localStep<Result>(path: string, step: () => Promise<Result>): Promise<Result> {
  try {
    return await step()
  } catch (error) {
    throw localFailure(path, error)
  }
}

const failures: Record<string, string> = {
  ENOENT: "there is no such file or directory",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOSPC: "the disk is full",
  EISDIR: "a directory of that name exists",
  ENOTDIR: "a part of the path is not a directory",
  ELOOP: "it is a link",
  EROFS: "the file system is read-only",
}

export function localFailure(path: string, cause: unknown): AppError {
  const code = errorCodeOf(cause)
  return new AppError("invalid", `${path}: ${failures[code ?? ""] ?? code ?? "it cannot be used"}`, { cause })
}
