/**
 * Makes one raw disk of a sandbox's layered one: the image's raw disk below, the template's differences over it, and
 * the sandbox's own on top. The files are read by our own bounded reader, never by a program that trusts their headers.
 */

import { constants } from "node:fs"
import { type FileHandle, open } from "node:fs/promises"
import { AppError } from "@bhatti/contract/errors"
import { punchHole } from "../lib/posix.ts"
import { type Cluster, clusterBytes, Damage, readClusters } from "../lib/qcow2.ts"
import { isZero } from "../lib/sparse-file.ts"
import { copyFileWithChecksum, writeAll } from "./copy-file.ts"

export type LayeredDisk = {
  /** The image's raw disk. */
  base: string
  /** Differences, the lowest first. */
  differences: readonly string[]
}

/** Writes a new sparse file. None of the disks may change meanwhile. */
export async function flattenDisk(
  { base, differences }: LayeredDisk,
  to: string,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  await copyFileWithChecksum(base, to, { signal })
  await using target = await open(to, constants.O_RDWR)
  for (const path of differences) {
    await using source = await open(path, "r")
    try {
      await apply(source, target, signal)
    } catch (error) {
      if (!(error instanceof Damage)) throw error
      throw new AppError("unavailable", `a disk is damaged: ${error.what}`, { retryable: false })
    }
  }
}

async function apply(source: FileHandle, target: FileHandle, signal: AbortSignal): Promise<void> {
  const buffer = Buffer.allocUnsafe(clusterBytes)
  for await (const { diskBytes, clusters } of readClusters(source)) {
    if (clusters.length === 0) await resize(target, diskBytes)
    for (const cluster of clusters) {
      signal.throwIfAborted()
      const room = Math.min(clusterBytes, diskBytes - cluster.at)
      if (room > 0) await put(source, target, { cluster, bytes: buffer.subarray(0, room) })
    }
  }
}

/** A disk only grows. */
async function resize(target: FileHandle, bytes: number): Promise<void> {
  if ((await target.stat()).size < bytes) await target.truncate(bytes)
}

async function put(
  source: FileHandle,
  target: FileHandle,
  { cluster: { at, from }, bytes }: { cluster: Cluster; bytes: Buffer },
): Promise<void> {
  if (from !== null) {
    const { bytesRead } = await source.read(bytes, 0, bytes.length, from)
    bytes.fill(0, bytesRead)
  }
  if (from !== null && !isZero(bytes)) return await writeAll(target, bytes, at)
  if (punchHole(target.fd, { offset: at, bytes: bytes.length })) return
  await writeAll(target, bytes.fill(0), at)
}
