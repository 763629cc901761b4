/** The bound on a disk's file, against what qemu-img says of disks and what QEMU makes of one. */

import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
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

test("a disk that is always full, trimmed and written again in pieces of other places, stays far below its bound", () => {
  const [diskMib, pieceMib, rounds] = [64, 8, 12]
  const clusters = diskMib * 16
  const directory = mkdtempSync("/tmp/bhatti-bounds-")
  try {
    const path = join(directory, "disk.qcow2")
    const make = ["qemu-img", "create", "-q", "-f", "qcow2", path, `${diskMib}M`]
    expect(Bun.spawnSync(make).exitCode).toBe(0)
    let seed = 7
    const below = (max: number) => {
      seed = (seed * 16_807) % 2_147_483_647
      return seed % max
    }
    const pieces = Array.from(
      { length: diskMib / pieceMib },
      (_, index) => `${index * pieceMib}M ${pieceMib}M`,
    )
    const words = pieces.map((piece) => `write -q -P 1 ${piece}`)
    for (let round = 0; round < rounds; round++) {
      for (let count = 0; count < 100; count++) {
        const length = Math.min(1 + below(16), clusters)
        words.push(`discard -q ${below(clusters - length) * 64}k ${length * 64}k`)
      }
      const order = pieces.toSorted(() => below(2) - 0.5)
      words.push(...order.map((piece) => `write -q -P 1 ${piece}`))
    }
    const play = Bun.spawnSync(["qemu-io", "-f", "qcow2", "-d", "unmap", path], {
      stdin: Buffer.from(`${words.join("\n")}\n`),
    })
    expect([play.exitCode, play.stderr.toString()]).toEqual([0, ""])
    const { size, blocks } = statSync(path)
    const whole = diskMib * 1024 * 1024
    expect(size).toBeGreaterThan(whole)
    expect(size).toBeLessThan(2.5 * whole)
    // Its holes take no space.
    expect(blocks * 512).toBeLessThan(1.05 * whole)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
