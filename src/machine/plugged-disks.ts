/**
 * Disks that a machine has beside its own: raw files, each in a slot of the machine's bridge, its port. A list beside
 * the machine's sockets says which has which; it is written before QEMU gets a disk, so it never lacks one. A disk is
 * no part of the fingerprint of a state; the saved memory has the list instead.
 */

import { closeSync, constants, fstatSync, openSync } from "node:fs"
import { readFile, rename, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { removeFile, whenMissing } from "../lib/missing-files.ts"
import { openSealedJson, sealJson } from "../lib/sealed-json.ts"
import { descriptors, kitSerial } from "./command-line.ts"

/** The bridge has room for more; a machine needs few. */
export const pluggedDisksMax = 8

const sectorBytes = 512

/** A serial number of virtio has 20 bytes. */
const DiskId = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,20}$/)
  .refine((id) => id !== kitSerial)

/** `id` is the serial number that the guest sees. `path` leads to a raw file; a writable one has this user alone. */
export type MachineDisk = { id: string; path: string; isReadOnly: boolean }

const Port = z
  .int()
  .min(0)
  .max(pluggedDisksMax - 1)
const PluggedDisk = z.object({ id: DiskId, path: z.string(), isReadOnly: z.boolean(), port: Port })
export type PluggedDisk = z.infer<typeof PluggedDisk>

/** A disk as a saved memory knows it; size and time of change tell another content. */
export const SavedDisk = PluggedDisk.omit({ path: true }).extend({ bytes: z.int(), modifiedNs: z.string() })
export type SavedDisk = z.infer<typeof SavedDisk>

/** Gives each disk the lowest port that is free. */
export function placeDisks(
  disks: readonly MachineDisk[],
  others: readonly PluggedDisk[] = [],
): PluggedDisk[] {
  const placed: PluggedDisk[] = []
  for (const { id, path, isReadOnly } of disks) {
    if (!DiskId.safeParse(id).success)
      throw new AppError("invalid", "a disk's id has up to 20 letters, digits, - and _")
    const taken = [...others, ...placed]
    if (taken.some((one) => one.id === id))
      throw new AppError("conflict", `the machine has a disk ${id} already`)
    const port = Array.from({ length: pluggedDisksMax }, (_, index) => index).find(
      (index) => !taken.some((one) => one.port === index),
    )
    if (port === undefined)
      throw new AppError("limit_exceeded", `a machine takes at most ${pluggedDisksMax} further disks`)
    placed.push({ id, path, isReadOnly, port })
  }
  return placed
}

/** Returns the disks at the ports where a saved memory has them, or the reason why these are not its disks. */
export async function matchDisks(
  saved: readonly SavedDisk[],
  given: readonly MachineDisk[],
): Promise<{ disks: PluggedDisk[] } | { reason: string }> {
  const unknown = given.find(({ id }) => !saved.some((one) => one.id === id))
  if (unknown) return { reason: `it got the disk ${unknown.id} after its memory was saved` }
  const disks: PluggedDisk[] = []
  for (const { id, port, isReadOnly, ...stamp } of saved) {
    const disk = given.find((one) => one.id === id && one.isReadOnly === isReadOnly)
    if (!disk) return { reason: `its memory was saved with the disk ${id}, which it has no more` }
    const now = await stampOf(disk.path).catch(whenMissing)
    if (!now) return { reason: `the file of its disk ${id} is missing` }
    if (!Bun.deepEquals(now, stamp))
      return { reason: `its disk ${id} has changed since its memory was saved` }
    disks.push({ ...disk, port })
  }
  return { disks }
}

/** Call it when QEMU writes nothing more. */
export async function saveDisk({ id, path, isReadOnly, port }: PluggedDisk): Promise<SavedDisk> {
  return { id, isReadOnly, port, ...(await stampOf(path)) }
}

async function stampOf(path: string): Promise<{ bytes: number; modifiedNs: string }> {
  const { size, mtimeNs } = await stat(path, { bigint: true })
  return { bytes: Number(size), modifiedNs: `${mtimeNs}` }
}

/** Opens the file for QEMU. The caller closes the descriptor. */
export function openDisk({ id, path, isReadOnly }: MachineDisk): { fd: number; bytes: number } {
  const flags = constants.O_NOFOLLOW | (isReadOnly ? constants.O_RDONLY : constants.O_RDWR)
  const fd = openSync(path, flags)
  const about = fstatSync(fd)
  if (about.isFile() && about.size > 0 && about.size % sectorBytes === 0) return { fd, bytes: about.size }
  closeSync(fd)
  throw new AppError("invalid", `the disk ${id} is no file of whole sectors of ${sectorBytes} bytes`)
}

/** The names by which QEMU's monitor knows the parts of a disk, which no user chose. */
export const partsOf = ({ port }: Pick<PluggedDisk, "port">) => ({
  set: 16 + port,
  file: `port${port}-file`,
  disk: `port${port}`,
  device: `disk-port${port}`,
})

/** The same for the command line and for the monitor. */
export function blockNodes(disk: PluggedDisk): Record<string, unknown>[] {
  const { set, file, disk: name } = partsOf(disk)
  const access = { "read-only": disk.isReadOnly, discard: "unmap" }
  return [
    {
      ...{ driver: "file", "node-name": file, filename: `/dev/fdset/${set}`, ...access },
      ...{ "auto-read-only": false, locking: "off", "drop-cache": false },
    },
    { driver: "raw", "node-name": name, file, ...access },
  ]
}

export function deviceOf(disk: PluggedDisk): Record<string, unknown> {
  const { device, disk: name } = partsOf(disk)
  return {
    ...{ driver: "virtio-blk-pci", id: device, bus: "plug", addr: `0x${(disk.port + 1).toString(16)}` },
    ...{ drive: name, serial: disk.id, "num-queues": 1, "write-cache": "on" },
    ...{ werror: "enospc", rerror: "report", "disable-legacy": "on" },
  }
}

/** Their descriptors follow the machine's own, in the order of the list. */
export function diskArguments(disks: readonly PluggedDisk[]): string[] {
  const firstFd = 3 + Object.keys(descriptors).length
  return disks.flatMap((disk, index) => [
    ...["-add-fd", `fd=${firstFd + index},set=${partsOf(disk).set}`],
    ...blockNodes(disk).flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    ...["-device", JSON.stringify(deviceOf(disk))],
  ])
}

const listPath = (directory: string) => join(directory, "plugged.json")

/** Every start writes the list, so it is that of the present machine. */
export async function writePlugged(directory: string, disks: readonly PluggedDisk[]): Promise<void> {
  const path = listPath(directory)
  if (disks.length === 0) return removeFile(path)
  await writeFile(`${path}.part`, sealJson({ disks }), { mode: 0o600 })
  await rename(`${path}.part`, path)
}

export async function readPlugged(directory: string): Promise<PluggedDisk[]> {
  const text = await readFile(listPath(directory), "utf8").catch(whenMissing)
  if (text === undefined) return []
  const list = z.object({ disks: z.array(PluggedDisk) }).safeParse(openSealedJson(text)).data
  if (list) return list.disks
  throw new AppError("unavailable", "the list of the machine's disks is damaged", { retryable: false })
}
