/**
 * Which disk a memory belongs to. When a machine is saved its disk gets a mark that no other moment has, in a part of the
 * header that QEMU leaves alone; mark, size and a checksum of the tables are kept with the memory. So an older copy of the disk is
 * told from the right one, and a disk that was cut or whose tables were changed from a whole one. What was changed in the
 * contents alone is not seen: reading all of them would take longer than a stop may.
 */

import { open } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { z } from "zod"
import { AppError } from "../contract/errors.ts"
import { Damage, markPlace, readTables } from "./qcow2.ts"

export const DiskBinding = z.object({ mark: z.string(), bytes: z.int(), tables: z.string() })
export type DiskBinding = z.infer<typeof DiskBinding>

export function diskPathOf(directory: string): string {
  return join(directory, "disk.qcow2")
}

/** Marks the disk of a paused machine: QEMU has written its tables out, and writes nothing more. The caller syncs the file. */
export async function bindDisk(path: string): Promise<DiskBinding> {
  const mark = crypto.getRandomValues(Buffer.alloc(markPlace.bytes))
  const file = await open(path, "r+")
  try {
    await file.write(mark, 0, mark.length, markPlace.offset)
  } finally {
    await file.close()
  }
  const { bytes, checksum } = await readDisk(path)
  return { mark: mark.toString("hex"), bytes, tables: checksum }
}

/** False: it is another disk than the one that was bound, or was used since. Throws if it is that one, and damaged. */
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
 * Throws if the disk cannot be what a machine left, as far as its header and its tables tell. Contents that are missing at the file's
 * end are what a host leaves that lost power before it had written them out; nobody had been promised them.
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
