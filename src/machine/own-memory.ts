/**
 * Saves and loads a clone's own pages: those it has written since it started from its template. /proc/PID/pagemap
 * tells which pages, /proc/PID/mem gives access to them, and a file keeps them as
 *
 *   "BHATTIPG" | version u32 | runs u32 | zero runs u32 | 0 u32 | the pages' bytes
 *              | runs, then zero runs: × (first page u32, pages u32)
 *
 * For pages of zeros, such as those a guest has freed, the file keeps only the positions; if the template has zeros
 * there too, they take no memory after loading either. Version 1 had no zero runs, and its runs before the bytes.
 *
 * Offsets are into the memory file, as the host maps it, never guest-physical addresses: those differ above 3 GiB.
 */

import { closeSync, fstatSync, openSync, readFileSync, readSync, writeSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { AppError } from "@bhatti/contract/errors"
import { Checksum } from "../lib/checksum.ts"
import { nextExtent, startWriteback } from "../lib/posix.ts"
import { nonZeroRuns } from "../lib/sparse-file.ts"

const pageBytes = 4096
const magic = Buffer.from("BHATTIPG")
const version = 2
const headerBytes = 24
const headerBytesOfVersion1 = 16
const runBytes = 8
/** The event loop gets a turn after each slice: 1 MiB is copied in 1 to 2 ms. */
const sliceBytes = 1024 * 1024
/**
 * Matches a template's memory file, or /dev/zero for a machine that was not made from a template. If the daemon
 * that started the machine had its own mount namespace, the path begins below /dev. Earlier versions mapped an
 * empty memory file.
 */
const memoryMapping =
  /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+ +(?:\/memfd:bhatti-template|(?:\/dev)?\/zero$)/
const emptyMapping = /(?:\/memfd:bhatti-template-empty .*|(?:\/dev)?\/zero)$/m

/** A range of the memory file in the process's address space. */
type Mapping = { address: number; bytes: number; offset: number }

export type Run = { page: number; pages: number }

function mappingsOf(pid: number): Mapping[] {
  const mappings: Mapping[] = []
  for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
    const [, start, end, offset] = memoryMapping.exec(line) ?? []
    if (start === undefined || end === undefined || offset === undefined) continue
    const address = Number.parseInt(start, 16)
    mappings.push({ address, bytes: Number.parseInt(end, 16) - address, offset: Number.parseInt(offset, 16) })
  }
  if (mappings.length === 0) throw ended()
  return mappings
}

/** Returns what a running machine's memory was mapped from. */
export function memoryBaseOf(pid: number): "template" | "empty" {
  return emptyMapping.test(readFileSync(`/proc/${pid}/maps`, "utf8")) ? "empty" : "template"
}

/** Returns how much of a machine's memory takes none of the host, or undefined if that is unknown. */
export async function untouchedMib(pid: number): Promise<number | undefined> {
  const text = await readFile(`/proc/${pid}/smaps`, "utf8").catch(() => "")
  let untouchedKib: number | undefined
  for (const part of text.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
    if (!memoryMapping.test(part.slice(0, part.indexOf("\n")))) continue
    const kib = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(part)?.[1] ?? 0)
    untouchedKib = (untouchedKib ?? 0) + kib("Size") - kib("Rss") - kib("Swap")
  }
  return untouchedKib === undefined ? undefined : Math.ceil(untouchedKib / 1024)
}

/** Present and not of the file (bit 63 set, 61 clear), or swapped out (bit 62): all in the upper half of an entry. */
const presentBit = 1 << 31
const swappedBit = 1 << 30
const fileBit = 1 << 29

function ownRuns(pid: number, mapping: Mapping): Run[] {
  const pages = mapping.bytes / pageBytes
  const entries = new Uint32Array(pages * 2)
  const fd = openSync(`/proc/${pid}/pagemap`, "r")
  try {
    readFully(fd, new Uint8Array(entries.buffer), (mapping.address / pageBytes) * 8, ended)
  } finally {
    closeSync(fd)
  }
  const firstPage = mapping.offset / pageBytes
  const runs: Run[] = []
  let current: Run | undefined
  for (let page = 0; page < pages; page++) {
    const upper = entries[page * 2 + 1] ?? 0
    const isOwn = (upper & swappedBit) !== 0 || ((upper & presentBit) !== 0 && (upper & fileBit) === 0)
    if (!isOwn) {
      current = undefined
    } else if (current) {
      current.pages++
    } else {
      current = { page: firstPage + page, pages: 1 }
      runs.push(current)
    }
  }
  return runs
}

/** Writes a stopped process's own pages to `fd`. Returns the number of bytes written and a checksum over them. */
export async function saveOwnMemory(options: {
  pid: number
  fd: number
  signal?: AbortSignal | undefined
}): Promise<{ bytes: number; checksum: string }> {
  const found = mappingsOf(options.pid).map((mapping) => ({ mapping, runs: ownRuns(options.pid, mapping) }))
  const runs: Run[][] = [[]]
  const zeroRuns: Run[][] = [[]]
  const sum = new Checksum()
  let written = headerBytes

  const memory = openSync(`/proc/${options.pid}/mem`, "r")
  const buffer = Buffer.allocUnsafe(sliceBytes)
  let filled = 0
  let looked = 0
  /** Flushes in the slices that `loadOwnMemory` reads, since the checksum depends on their ends. */
  const flush = () => {
    if (filled === 0) return
    const slice = buffer.subarray(0, filled)
    sum.add(slice)
    writeFully(options.fd, slice, written)
    startWriteback(options.fd, written, filled)
    written += filled
    filled = 0
  }
  /** Keeps the pages that are not zeros among the bytes behind the filled part, which begin with that page. */
  const keep = (page: number, bytes: number) => {
    const read = buffer.subarray(filled, filled + bytes)
    let zerosFrom = 0
    for (const { start, end } of nonZeroRuns(read)) {
      addRun(zeroRuns, page, zerosFrom, start)
      addRun(runs, page, start, end)
      // Copies only towards the front, over zeros.
      const at = read.byteOffset - buffer.byteOffset
      buffer.copyWithin(filled, at + start, at + end)
      filled += end - start
      zerosFrom = end
    }
    addRun(zeroRuns, page, zerosFrom, bytes)
  }
  try {
    for (const { mapping, runs: own } of found) {
      // A run never spans two mappings.
      runs.push([])
      zeroRuns.push([])
      for (const run of own) {
        const address = mapping.address + (run.page * pageBytes - mapping.offset)
        for (let done = 0; done < run.pages * pageBytes; ) {
          const take = Math.min(run.pages * pageBytes - done, sliceBytes - filled)
          readFully(memory, buffer.subarray(filled, filled + take), address + done, ended)
          keep(run.page + done / pageBytes, take)
          done += take
          looked += take
          if (filled === sliceBytes) flush()
          if (looked < sliceBytes) continue
          looked = 0
          await yieldTurn()
          options.signal?.throwIfAborted()
        }
      }
    }
    flush()
  } finally {
    closeSync(memory)
  }

  const tableBytes = writeTable(options.fd, { written, runs: runs.flat(), zeroRuns: zeroRuns.flat(), sum })
  return { bytes: written + tableBytes, checksum: sum.value() }
}

/** Writes the positions of the pages behind their contents, and the header before them. Returns the table's size. */
function writeTable(
  fd: number,
  { written, runs, zeroRuns, sum }: { written: number; runs: Run[]; zeroRuns: Run[]; sum: Checksum },
): number {
  const table = tableOf([...runs, ...zeroRuns])
  const header = Buffer.alloc(headerBytes)
  magic.copy(header)
  for (const [index, value] of [version, runs.length, zeroRuns.length].entries())
    header.writeUInt32LE(value, 8 + index * 4)
  for (const [bytes, at] of [
    [table, written],
    [header, 0],
  ] as const) {
    sum.add(bytes)
    writeFully(fd, bytes, at)
  }
  return table.length
}

/** Adds the pages between two offsets; `first` is the first examined page. Merges them with an adjacent last run. */
function addRun(all: Run[][], first: number, start: number, end: number): void {
  const runs = all.at(-1)
  if (!runs || start === end) return
  const page = first + start / pageBytes
  const pages = (end - start) / pageBytes
  const last = runs.at(-1)
  if (last && last.page + last.pages === page) last.pages += pages
  else runs.push({ page, pages })
}

function tableOf(runs: Run[]): Buffer {
  const table = Buffer.alloc(runs.length * runBytes)
  for (const [index, run] of runs.entries()) {
    table.writeUInt32LE(run.page, index * runBytes)
    table.writeUInt32LE(run.pages, index * runBytes + 4)
  }
  return table
}

/** Header of a file of saved pages. */
type Saved = { runs: Run[]; zeroRuns: Run[]; pagesAt: number; sumBefore: Buffer[]; sumBehind: Buffer[] }

function readSaved(file: number): Saved {
  const start = Buffer.alloc(headerBytesOfVersion1)
  readFully(file, start, 0, damaged)
  const runCount = start.readUInt32LE(12)
  const size = fstatSync(file).size
  if (!start.subarray(0, magic.length).equals(magic) || runCount * runBytes > size) throw damaged()
  const readTable = (position: number, count: number) => {
    const table = Buffer.alloc(count * runBytes)
    readFully(file, table, position, damaged)
    const runs = Array.from({ length: count }, (_, index) => ({
      page: table.readUInt32LE(index * runBytes),
      pages: table.readUInt32LE(index * runBytes + 4),
    }))
    return { table, runs }
  }
  switch (start.readUInt32LE(8)) {
    case 1: {
      const { table, runs } = readTable(headerBytesOfVersion1, runCount)
      const pagesAt = headerBytesOfVersion1 + table.length
      return { runs, zeroRuns: [], pagesAt, sumBefore: [Buffer.concat([start, table])], sumBehind: [] }
    }
    case version: {
      const header = Buffer.alloc(headerBytes)
      readFully(file, header, 0, damaged)
      const count = runCount + header.readUInt32LE(16)
      if (count * runBytes > size - headerBytes) throw damaged()
      const { table, runs } = readTable(size - count * runBytes, count)
      const zeroRuns = runs.splice(runCount)
      return { runs, zeroRuns, pagesAt: headerBytes, sumBefore: [], sumBehind: [table, header] }
    }
    default:
      throw damaged()
  }
}

/** Returns the positions of all saved pages, those of zeros included. */
export function savedRuns(path: string): Run[] {
  const file = openSync(path, "r")
  try {
    const { runs, zeroRuns } = readSaved(file)
    return [...runs, ...zeroRuns]
  } finally {
    closeSync(file)
  }
}

/**
 * Loads saved pages into a process that has mapped the memory file `base`, or memory without content, and has not
 * run yet.
 */
export async function loadOwnMemory(options: {
  pid: number
  path: string
  checksum: string
  base: number | undefined
}): Promise<void> {
  const mappings = mappingsOf(options.pid)
  const addressOf = ({ page, pages }: Run) => {
    const offset = page * pageBytes
    const mapping = mappings.find((one) => offset >= one.offset && offset < one.offset + one.bytes)
    if (!mapping || offset + pages * pageBytes > mapping.offset + mapping.bytes) throw damaged()
    return mapping.address + (offset - mapping.offset)
  }
  const file = openSync(options.path, "r")
  try {
    const saved = readSaved(file)
    const sum = new Checksum()
    for (const bytes of saved.sumBefore) sum.add(bytes)
    const endOfPages = saved.pagesAt + pageBytes * saved.runs.reduce((sum, { pages }) => sum + pages, 0)

    const memory = openSync(`/proc/${options.pid}/mem`, "r+")
    const buffer = Buffer.allocUnsafe(sliceBytes)
    let position = saved.pagesAt
    let filled = 0
    let taken = 0
    const refill = async () => {
      filled = Math.min(sliceBytes, endOfPages - position)
      readFully(file, buffer.subarray(0, filled), position, damaged)
      sum.add(buffer.subarray(0, filled))
      position += filled
      taken = 0
      await yieldTurn()
    }
    try {
      for (const run of saved.runs) {
        const address = addressOf(run)
        for (let done = 0; done < run.pages * pageBytes; ) {
          if (taken === filled) await refill()
          const take = Math.min(run.pages * pageBytes - done, filled - taken)
          writeFully(memory, buffer.subarray(taken, taken + take), address + done)
          taken += take
          done += take
        }
      }
      if (options.base !== undefined)
        for (const run of saved.zeroRuns) await clear(memory, addressOf(run), options.base, run)
    } finally {
      closeSync(memory)
    }
    for (const bytes of saved.sumBehind) sum.add(bytes)
    if (sum.value() !== options.checksum) throw damaged()
  } finally {
    closeSync(file)
  }
}

const zeros = Buffer.alloc(sliceBytes)

/** Writes zeros over those pages of a process in which its memory file has other contents. */
async function clear(memory: number, address: number, base: number, { page, pages }: Run): Promise<void> {
  const from = page * pageBytes
  const to = from + pages * pageBytes
  const buffer = Buffer.allocUnsafe(sliceBytes)
  for (let offset = from; offset < to; ) {
    const extent = nextExtent({ fd: base, offset })
    if (!extent || extent.start >= to) return
    offset = Math.max(offset, extent.start)
    const read = buffer.subarray(0, Math.min(sliceBytes, extent.end - offset, to - offset))
    readFully(base, read, offset, damaged)
    for (const { start, end } of nonZeroRuns(read)) {
      writeFully(memory, zeros.subarray(0, end - start), address + (offset - from) + start)
    }
    offset += read.length
    await yieldTurn()
  }
}

/** The process has exited; reads and writes of its memory return 0 bytes. */
function ended(): AppError {
  return new AppError("unavailable", "the machine ended while its memory was copied")
}

function damaged(): AppError {
  return new AppError("unavailable", "a memory snapshot is damaged", { retryable: false })
}

function readFully(fd: number, bytes: Uint8Array, position: number, atEnd: () => AppError): void {
  for (let done = 0; done < bytes.length; ) {
    const count = readSync(fd, bytes, done, bytes.length - done, position + done)
    if (count === 0) throw atEnd()
    done += count
  }
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    const count = writeSync(fd, bytes, done, bytes.length - done, position + done)
    if (count === 0) throw ended()
    done += count
  }
}

function yieldTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
