/** Detects a full disk when a QEMU write fails, since QEMU does not report the reason. */

import { statfs } from "node:fs/promises"

const mebibyte = 1024 * 1024

export async function isFull(directory: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize < mebibyte
}

export function diskFull(cause?: unknown): Error {
  return Object.assign(new Error("the disk is full", { cause }), { code: "ENOSPC" })
}
