/**
 * Bounds on the files that a QEMU may write to, its disk and its device state. The kernel keeps them, since a guest may have taken
 * over the QEMU. A disk of which clusters were freed and taken again may be longer than what it holds, as those that lie
 * apart take no longer piece: the length of one that was full all the time, trimmed and written in random pieces of up to 32 MiB,
 * was 2.2 times its size. No guest of a sound QEMU may meet the bound, for its write would fail.
 */

const mebibyte = 1024 * 1024
const lengthPerSize = 4
/** Tables of a qcow2 file are a part of 1/6500 of it; the header, and a device state. */
const besideDiskMib = 64

export function fileBytesMax(diskMib: number): number {
  return (diskMib * lengthPerSize + Math.ceil(diskMib / 1024) + besideDiskMib) * mebibyte
}

/** A device state is 170 KB, and some more with each processor. It is read into the daemon's memory. */
export const stateBytesMax = 64 * mebibyte

/** The kernel probe's console, all of which is read. */
export const probeBytesMax = mebibyte
