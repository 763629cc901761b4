/**
 * Reads the header and the tables of a sandbox's qcow2 file within limits: the file is untrusted, since a guest may
 * have taken over the QEMU that writes it, or it may be damaged. Accepts only the kind of file that is created here.
 *
 *   header ─► reference counts' table ─► their blocks
 *          └► L1 ─► L2 tables ─► the disk's contents, whose places are told and which are not read
 */

import { type FileHandle, open } from "node:fs/promises"
import { Checksum } from "./checksum.ts"
import { whenMissing } from "./missing-files.ts"

const magic = 0x514649fb
const version = 3
const clusterBits = 16
export const clusterBytes = 1 << clusterBits
const headerBytes = 112
const entryBytes = 8
/** The largest possible disk, 1 TiB, has half of this. */
const tablesBytesMax = 256 * 1024 * 1024
/**
 * A QEMU that was killed leaves the "dirty" flag, which is harmless. All other flags mean a file that was not made
 * here.
 */
const toleratedFeatures = 1n
const offsetMask = 0x00ff_ffff
/** Bits of an entry of a second table: in its upper half, and in its lower half. */
const compressedBit = 0x4000_0000
const zerosBit = 1
/** An offset in the header's cluster that the format leaves free, within the first 4 KiB, which always hold data. */
export const markPlace = { offset: 3584, bytes: 32 }

/** Describes in one sentence why the file is damaged. */
export class Damage {
  readonly what: string

  constructor(what: string) {
    this.what = what
  }
}

export type DiskTables = {
  bytes: number
  /** Checksum over header and tables, without the mark. */
  checksum: string
  mark: Buffer
  /** Contents that would lie behind the file's end; they read as zeros. */
  missingBytes: number
}

export async function readTables(path: string): Promise<DiskTables | Damage> {
  await using file = await open(path, "r").catch(whenMissing)
  if (!file) return new Damage("it is missing")
  try {
    return await new TableReader(file, (await file.stat()).size).read()
  } catch (error) {
    if (error instanceof Damage) return error
    throw error
  }
}

/** `at` is the cluster's place on the disk, `from` its place in the file; null: it reads as zeros. */
export type Cluster = { at: number; from: number | null }

/** The clusters that a file has of its disk, in order. Throws a `Damage` if it cannot be one that was made here. */
export async function* readClusters(
  file: FileHandle,
): AsyncGenerator<{ diskBytes: number; clusters: Cluster[] }> {
  const reader = new TableReader(file, (await file.stat()).size)
  yield* reader.clusters()
}

class TableReader {
  readonly #file: FileHandle
  readonly #bytes: number
  readonly #sum = new Checksum()
  #read = 0

  constructor(file: FileHandle, bytes: number) {
    this.#file = file
    this.#bytes = bytes
  }

  async read(): Promise<DiskTables> {
    if (this.#bytes === 0) throw new Damage("it is empty")
    if (this.#bytes < clusterBytes) throw new Damage("it is truncated within its header")
    const header = await this.#take(0, clusterBytes, "header", { isSummed: false })
    const mark = Buffer.from(header.subarray(markPlace.offset, markPlace.offset + markPlace.bytes))
    header.fill(0, markPlace.offset, markPlace.offset + markPlace.bytes)
    this.#sum.add(header)
    const { l1Entries, l1Offset, countsOffset, countsClusters } = parseHeader(header)

    const counts = await this.#take(countsOffset, countsClusters * clusterBytes, "table of reference counts")
    for (const offset of offsetsIn(counts)) await this.#take(offset, clusterBytes, "reference counts")

    let missing = 0
    for (const offset of offsetsIn(await this.#take(l1Offset, l1Entries * entryBytes, "first table"))) {
      missing += countBehind(await this.#take(offset, clusterBytes, "second table"), this.#bytes)
    }
    return { bytes: this.#bytes, checksum: this.#sum.value(), mark, missingBytes: missing * clusterBytes }
  }

  /** The clusters behind each second table; the first answer has none and tells the size of the disk. */
  async *clusters(): AsyncGenerator<{ diskBytes: number; clusters: Cluster[] }> {
    const header = await this.#take(0, clusterBytes, "header")
    const { l1Entries, l1Offset, diskBytes } = parseHeader(header)
    yield { diskBytes, clusters: [] }
    const first = await this.#take(l1Offset, l1Entries * entryBytes, "first table")
    for (let index = 0; index < l1Entries; index++) {
      const offset = offsetAt(first, index * entryBytes)
      if (offset === 0) continue
      const table = await this.#take(offset, clusterBytes, "second table")
      const start = index * (clusterBytes / entryBytes) * clusterBytes
      yield { diskBytes, clusters: [...clustersIn(table, start, this.#bytes)] }
    }
  }

  async #take(offset: number, bytes: number, name: string, { isSummed = true } = {}): Promise<Buffer> {
    if (offset % clusterBytes !== 0 || (offset === 0) !== (name === "header")) {
      throw new Damage(`its ${name} is at an impossible position`)
    }
    if (offset + bytes > this.#bytes) throw new Damage(`it is truncated: its ${name} lies beyond its end`)
    this.#read += bytes
    if (this.#read > tablesBytesMax) throw new Damage("its tables are larger than those of any disk")
    const buffer = Buffer.allocUnsafe(bytes)
    const { bytesRead } = await this.#file.read(buffer, 0, bytes, offset)
    if (bytesRead !== bytes) throw new Damage(`it is truncated: its ${name} lies beyond its end`)
    if (isSummed) this.#sum.add(buffer)
    return buffer
  }
}

function parseHeader(header: Buffer): {
  l1Entries: number
  l1Offset: number
  countsOffset: number
  countsClusters: number
  diskBytes: number
} {
  if (header.readUInt32BE(0) !== magic) throw new Damage("it does not begin with a disk's header")
  const isOurs =
    header.readUInt32BE(4) === version &&
    header.readUInt32BE(20) === clusterBits &&
    header.readUInt32BE(32) === 0 &&
    header.readUInt32BE(60) === 0 &&
    (header.readBigUInt64BE(72) & ~toleratedFeatures) === 0n &&
    header.readUInt32BE(96) === 4 &&
    header.readUInt32BE(100) === headerBytes
  if (!isOurs) throw new Damage("its header is not that of a disk made here")
  const l1Entries = header.readUInt32BE(36)
  const diskBytes = header.readBigUInt64BE(24)
  const clustersPerTable = BigInt(clusterBytes / entryBytes)
  if (BigInt(l1Entries) * clustersPerTable * BigInt(clusterBytes) < diskBytes) {
    throw new Damage("its header contradicts itself")
  }
  return {
    l1Entries,
    l1Offset: Number(header.readBigUInt64BE(40)),
    countsOffset: Number(header.readBigUInt64BE(48)),
    countsClusters: header.readUInt32BE(56),
    diskBytes: Number(diskBytes),
  }
}

/** The clusters that a table references. */
function* offsetsIn(table: Buffer): Generator<number> {
  for (let at = 0; at + entryBytes <= table.length; at += entryBytes) {
    const offset = offsetAt(table, at)
    if (offset !== 0) yield offset
  }
}

function* clustersIn(table: Buffer, start: number, fileBytes: number): Generator<Cluster> {
  for (let entry = 0; entry < table.length; entry += entryBytes) {
    const at = start + (entry / entryBytes) * clusterBytes
    if ((table.readUInt32BE(entry) & compressedBit) !== 0) throw new Damage("it holds a compressed cluster")
    if ((table.readUInt32BE(entry + 4) & zerosBit) !== 0) {
      yield { at, from: null }
      continue
    }
    const offset = offsetAt(table, entry)
    if (offset === 0) continue
    if (offset % clusterBytes !== 0) throw new Damage("one of its clusters is at an impossible position")
    // The host has lost the end of the file: it reads as zeros.
    yield { at, from: offset < fileBytes ? offset : null }
  }
}

/** A separate loop: a disk has many thousands of these. */
function countBehind(table: Buffer, bytes: number): number {
  let count = 0
  for (let at = 0; at < table.length; at += entryBytes) if (offsetAt(table, at) >= bytes) count++
  return count
}

/** The upper byte of an entry holds flags, and so do the bits far below a cluster. */
function offsetAt(table: Buffer, at: number): number {
  const lower = table.readUInt32BE(at + 4)
  return (table.readUInt32BE(at) & offsetMask) * 2 ** 32 + lower - (lower % 512)
}
