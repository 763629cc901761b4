/**
 * The room that an image may take while it is made: the operator's limit, and its user's quota. Nobody knows an image's
 * size before it is unpacked, so an estimate is reserved, and all that is left if that was too little.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Core } from "./core.ts"
import type { RunningTask } from "./tasks.ts"

const mebibyte = 1024 * 1024
/** Layers are seldom compressed to less than a quarter. */
const unpackedPerCompressed = 4
const spareMib = 64

/** Estimates what so many compressed bytes become. */
export function unpackedMib(compressedBytes: number): number {
  return Math.ceil((compressedBytes / mebibyte) * unpackedPerCompressed) + spareMib
}

/** Runs the work with the bytes that it may take; throws `limit_exceeded` if the quota is what ends it. */
export async function withImageRoom<T>(
  core: Pick<Core, "settings" | "store">,
  task: RunningTask,
  { name, estimateMib }: { name: string; estimateMib: number },
  work: (bytesMax: number) => Promise<T>,
): Promise<T> {
  const { imageMibMax } = core.settings.images
  const reserve = (wantedMib: number) =>
    core.store.tasks.reserveForImage(task.record, { wantedMib: Math.min(wantedMib, imageMibMax), name })
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

function overQuota(leftMib: number): AppError {
  return new AppError(
    "limit_exceeded",
    `the image takes more than the ${Math.max(0, leftMib)} MB that are left of your disk quota`,
    { hint: "destroy a sandbox, delete a snapshot or an image, or ask the operator for a higher quota" },
  )
}
