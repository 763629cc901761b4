/**
 * Limits on the size of the files that a QEMU may write: its disk and its device state. The kernel enforces them,
 * since a guest may have taken over its QEMU. A disk can be longer than its contents, because freed clusters that
 * lie apart cannot hold a longer piece: a full disk that was trimmed and written in random pieces of up to 32 MiB
 * grew to 2.2 times its size. A guest of a sound QEMU must never reach the limit, since its write would fail.
 */

const mebibyte = 1024 * 1024
const lengthPerSize = 4
/** Allowance for a qcow2 file's tables (1/6500 of it), its header, and a device state. */
const besideDiskMib = 64

export function fileBytesMax(diskMib: number): number {
  return (diskMib * lengthPerSize + Math.ceil(diskMib / 1024) + besideDiskMib) * mebibyte
}

/** A device state takes 170 KB plus some for each processor. The daemon reads it into memory. */
export const stateBytesMax = 64 * mebibyte

/** The kernel probe's console, which is read completely. */
export const probeBytesMax = mebibyte
