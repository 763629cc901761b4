/** Disks that QEMU's own programs have made and written to, as our own reader sees them, whole and damaged. */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { bindDisk, checkDisk, type DiskBinding, isBoundDisk } from "./bound-disk.ts"

const mebibyte = 1024 * 1024
const clusterBytes = 65_536
let directory: string
let disk: string

beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-disk-")
  disk = join(directory, "sandboxes", "id", "disk.qcow2")
  mkdirSync(join(directory, "sandboxes", "id"), { recursive: true })
  run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "given-at-start", disk, "2048M")
  write("write -q -P 65 0 3M", "write -q -P 66 600M 256k")
})
afterEach(() => rmSync(directory, { recursive: true }))

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command)
  if (exitCode !== 0) throw new Error(`${command}: ${stderr}`)
}

function write(...commands: string[]): void {
  const options = `driver=qcow2,file.filename=${disk},backing=`
  run("qemu-io", "--image-opts", ...commands.flatMap((command) => ["-c", command]), options)
}

function flip(at: number): void {
  const bytes = readFileSync(disk)
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
  writeFileSync(disk, bytes)
}

const entry = (bytes: Buffer, at: number) => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)

/** All bytes that are header or table. */
function tables(): { start: number; end: number }[] {
  const bytes = readFileSync(disk)
  const counts = entry(bytes, 48)
  const first = entry(bytes, 40)
  const entries = bytes.readUInt32BE(36)
  const seconds = Array.from({ length: entries }, (_, index) => entry(bytes, first + index * 8)).filter(
    Boolean,
  )
  return [
    { start: 0, end: 3584 },
    { start: first, end: first + entries * 8 },
    ...[counts, entry(bytes, counts), ...seconds].map((start) => ({ start, end: start + clusterBytes })),
  ]
}

describe("a disk that was bound", () => {
  let binding: DiskBinding
  beforeEach(async () => {
    binding = await bindDisk(disk)
  })

  test("is known again, and QEMU's programs still find it whole", async () => {
    expect(await isBoundDisk(disk, binding)).toBe(true)
    run("qemu-img", "check", "-q", "--image-opts", `driver=qcow2,file.filename=${disk},backing=`)
    write("read -q -P 65 0 3M", "read -q -P 66 600M 256k")
    expect(await isBoundDisk(disk, binding)).toBe(true)
  })

  test("is another one after it was bound anew, also if not one byte of its tables differs", async () => {
    const older = `${disk}.older`
    copyFileSync(disk, older)
    write("write -q -P 67 0 3M")
    const newer = await bindDisk(disk)
    expect(newer.tables).toBe(binding.tables)
    expect(await isBoundDisk(disk, newer)).toBe(true)
    copyFileSync(older, disk)
    expect(await isBoundDisk(disk, newer)).toBe(false)
    expect(await isBoundDisk(disk, binding)).toBe(true)
  })

  test("is damaged when any byte of its header or its tables was changed", async () => {
    const places = tables()
    const place = fc
      .integer({ min: 0, max: places.length - 1 })
      .chain((index) => fc.integer({ min: places[index]?.start ?? 0, max: (places[index]?.end ?? 1) - 1 }))
    await fc.assert(
      fc.asyncProperty(place, async (at) => {
        flip(at)
        await expect(isBoundDisk(disk, binding)).rejects.toMatchObject({
          code: "unavailable",
          retryable: false,
          message: expect.stringContaining("sandboxes/id/disk.qcow2 is damaged: "),
        })
        flip(at)
        expect(await isBoundDisk(disk, binding)).toBe(true)
      }),
      { numRuns: 60 },
    )
  })

  test("is damaged when it was cut anywhere, and when it is gone", async () => {
    const whole = readFileSync(disk)
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1 }), async (bytes) => {
        writeFileSync(disk, whole)
        truncateSync(disk, bytes)
        await expect(isBoundDisk(disk, binding)).rejects.toThrow("disk.qcow2 is damaged: ")
      }),
      { numRuns: 30 },
    )
    rmSync(disk)
    await expect(isBoundDisk(disk, binding)).rejects.toThrow("disk.qcow2 is damaged: it is missing")
  })
})

describe("a disk that nothing is known of", () => {
  test("tells how much of its contents its host has not written out", async () => {
    expect(await checkDisk(disk)).toEqual({ missingMib: 0 })
    const bytes = readFileSync(disk)
    // The last that was written lies at the file's end, behind all tables.
    truncateSync(disk, bytes.length - 2 * clusterBytes)
    expect(await checkDisk(disk)).toEqual({ missingMib: 1 })
  })

  test("is damaged when it is cut within its tables, has features that ours have not, or is something else", async () => {
    const whole = readFileSync(disk)
    const damages: [string, (bytes: Buffer) => Buffer | undefined][] = [
      ["is empty", () => Buffer.alloc(0)],
      ["does not begin with a disk's header", () => Buffer.alloc(mebibyte)],
      ["its header is not that of a disk made here", (bytes) => void bytes.writeUInt8(4, 79)],
      [
        "its second table lies beyond its end",
        (bytes) => bytes.subarray(0, entry(bytes, entry(bytes, 40)) + 9),
      ],
      ["is at an impossible position", (bytes) => void bytes.writeUInt8(2, entry(bytes, 40) + 6)],
      ["larger than those of any disk", (bytes) => void bytes.writeUInt32BE(0xffff, 56)],
    ]
    for (const [what, damage] of damages) {
      const bytes = Buffer.from(whole)
      writeFileSync(disk, damage(bytes) ?? bytes)
      // Holes, so that what a header claims is there.
      if (what.startsWith("larger")) truncateSync(disk, 8 * 1024 * mebibyte)
      await expect(checkDisk(disk)).rejects.toThrow(what)
    }
  })
})
