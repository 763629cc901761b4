/**
 * Binds a saved memory to its disk. Saving a machine puts a unique mark into a part of the disk's header that QEMU
 * leaves alone; the memory keeps the mark, the size and a checksum of the tables. This detects an older copy of the
 * disk, a truncated disk, and a disk with changed tables. Changes to the contents alone are not detected: reading
 * all of them would take too long for a stop.
 */

import { open } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { Damage, markPlace, readTables } from "../lib/qcow2.ts"

export const DiskBinding = z.object({ mark: z.string(), bytes: z.int(), tables: z.string() })
export type DiskBinding = z.infer<typeof DiskBinding>

export function diskPathOf(directory: string): string {
  return join(directory, "disk.qcow2")
}

/**
 * Marks the disk of a paused machine. QEMU has flushed its tables and writes nothing more. The caller syncs the
 * file.
 */
export async function bindDisk(path: string): Promise<DiskBinding> {
  const mark = crypto.getRandomValues(Buffer.alloc(markPlace.bytes))
  {
    await using file = await open(path, "r+")
    await file.write(mark, 0, mark.length, markPlace.offset)
  }
  const { bytes, checksum } = await readDisk(path)
  return { mark: mark.toString("hex"), bytes, tables: checksum }
}

/** Returns false if this is not the bound disk or it was used since. Throws if it is the bound disk and is damaged. */
export async function isBoundDisk(path: string, binding: DiskBinding): Promise<boolean> {
  const { mark, bytes, checksum } = await readDisk(path)
  if (mark.toString("hex") !== binding.mark) return false
  if (bytes !== binding.bytes) {
    throw damagedDisk(path, `it has ${bytes} bytes and had ${binding.bytes} when the sandbox was stopped`)
  }
  if (checksum !== binding.tables) {
    throw damagedDisk(path, "its header or its tables are not as they were when the sandbox was stopped")
  }
  return true
}

/**
 * Throws if the header and tables show that no machine can have left this disk. Contents may be missing at the end
 * of the file: a host that lost power before a flush leaves that, and no flush had been confirmed.
 */
export async function checkDisk(path: string): Promise<{ missingMib: number }> {
  return { missingMib: Math.ceil((await readDisk(path)).missingBytes / 1024 / 1024) }
}

async function readDisk(path: string) {
  const tables = await readTables(path)
  if (tables instanceof Damage) throw damagedDisk(path, tables.what)
  return tables
}

function damagedDisk(path: string, what: string): AppError {
  const directory = dirname(path)
  const name = join(basename(dirname(directory)), basename(directory), basename(path))
  return new AppError("unavailable", `the disk ${name} is damaged: ${what}`, {
    hint: "put this file of the data directory back from a backup; nothing was changed",
    retryable: false,
  })
}
