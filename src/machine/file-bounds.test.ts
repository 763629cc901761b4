/** The bound on a disk's file, against what qemu-img says of disks. */

import { expect, test } from "bun:test"
import { limits } from "../contract/limits.ts"
import { fileBytesMax, stateBytesMax } from "./file-bounds.ts"

test.each([limits.diskMibDefault, 12_288, 100_000, limits.diskMibMax])(
  "a full disk of %p MB is half as long as its file may become, and leaves room for a device state",
  (diskMib) => {
    const words = ["qemu-img", "measure", "--size", `${diskMib}M`, "-O", "qcow2", "--output", "json"]
    const measured = JSON.parse(Bun.spawnSync(words).stdout.toString()) as { "fully-allocated": number }
    expect(measured["fully-allocated"]).toBeGreaterThan(diskMib * 1024 * 1024)
    expect(fileBytesMax(diskMib)).toBeGreaterThan(2 * measured["fully-allocated"] + stateBytesMax)
    // Exact in JavaScript and in the launcher.
    expect(Number.isSafeInteger(fileBytesMax(diskMib))).toBe(true)
  },
)
