/**
 * The room that an image may take while it is made: the operator's limit, and its user's quota. Nobody knows an image's
 * size before it is unpacked, so an estimate is reserved, and all that is left if that was too little.
 */

import { AppError } from "@bhatti/contract/errors"
import type { TaskRecord } from "../store/tasks.ts"
import type { Core } from "./core.ts"
import type { RunningTask } from "./tasks.ts"

const mebibyte = 1024 * 1024
/** Layers are seldom compressed to less than a quarter. */
const unpackedPerCompressed = 4
const spareMib = 64
/** Reserved of an archive before it comes. */
const aheadMib = 64

/** Estimates what so many compressed bytes become. */
export function unpackedMib(compressedBytes: number): number {
  return Math.ceil((compressedBytes / mebibyte) * unpackedPerCompressed) + spareMib
}

/** Runs the work with the bytes that it may take; throws `limit_exceeded` if the quota is what ends it. */
export async function withImageRoom<T>(
  core: Pick<Core, "settings" | "store">,
  task: RunningTask,
  { name, estimateMib, leastMib = 1 }: { name: string; estimateMib: number; leastMib?: number },
  work: (bytesMax: number) => Promise<T>,
): Promise<T> {
  const { imageMibMax } = core.settings.images
  const reserve = (wantedMib: number) =>
    core.store.tasks.reserveForImage(task.record, {
      ...{ wantedMib: Math.min(wantedMib, imageMibMax), leastMib, name },
    })
  const first = await reserve(estimateMib)
  // Without a quota there is nothing to share out.
  const isBounded = Number.isFinite(first.leftMib)
  const firstMib = isBounded ? first.grantedMib : imageMibMax
  try {
    return await work(firstMib * mebibyte)
  } catch (error) {
    if (!isTooLarge(error) || firstMib >= imageMibMax) throw error
    const { grantedMib } = await reserve(imageMibMax)
    if (grantedMib <= firstMib) throw overQuota(grantedMib)
    try {
      return await work(grantedMib * mebibyte)
    } catch (again) {
      throw isTooLarge(again) && grantedMib < imageMibMax ? overQuota(grantedMib) : again
    }
  }
}

function isTooLarge(error: unknown): boolean {
  return error instanceof AppError && error.reason === "too_many_bytes"
}

/**
 * Passes an archive's bytes on, as far as the quota of its user goes: what has come and will come next is reserved, so
 * that several at once never take more together.
 */
export async function* withinQuota(
  core: Pick<Core, "store">,
  record: TaskRecord,
  bytes: AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  const reserve = (wantedMib: number) =>
    core.store.tasks.reserveForImage(record, { wantedMib, leastMib: 1, name: record.subject })
  let size = 0
  let grantedMib = (await reserve(aheadMib)).grantedMib
  for await (const piece of bytes) {
    size += piece.length
    const sizeMib = size / mebibyte
    if (sizeMib > grantedMib) {
      grantedMib = (await reserve(Math.ceil(sizeMib) + aheadMib)).grantedMib
      if (sizeMib > grantedMib) throw overQuota(grantedMib, "archive")
    }
    yield piece
  }
}

function overQuota(leftMib: number, what: "image" | "archive" = "image"): AppError {
  return new AppError(
    "limit_exceeded",
    `the ${what} takes more than the ${Math.max(0, leftMib)} MB that are left of your disk quota`,
    { hint: "destroy a sandbox, delete a snapshot or an image, or ask the operator for a higher quota" },
  )
}
