/**
 * The pages of a clone's memory that are its own: those it has written since it was started from its template. They
 * are found in /proc/PID/pagemap, read from and written to /proc/PID/mem, and kept in a file as
 *
 *   "BHATTIPG" | version u32 | runs u32 | runs × (first page u32, pages u32) | the pages' bytes, in that order
 *
 * Offsets are offsets into the memory file, as the host maps it, never guest-physical addresses: those differ above 3 GiB.
 */

import { closeSync, openSync, readFileSync, readSync, writeSync } from "node:fs"
import { AppError } from "../contract/errors.ts"
import { Checksum } from "../lib/checksum.ts"
import { startWriteback } from "../lib/posix.ts"

const pageBytes = 4096
const magic = Buffer.from("BHATTIPG")
const version = 1
const headerBytes = 16
const runBytes = 8
/** Between two of these the event loop gets its turn: 1 MiB is copied in 1 to 2 ms. */
const sliceBytes = 1024 * 1024
/** Of the memory file of a machine that was not made from a template; begins as a template's does. */
export const emptyMemoryName = "bhatti-template-empty"
const templateMapping = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \S+ +\/memfd:bhatti-template/

/** A stretch of the memory file in the process's address space. */
type Mapping = { address: number; bytes: number; offset: number }

type Run = { page: number; pages: number }

function mappingsOf(pid: number): Mapping[] {
  const mappings: Mapping[] = []
  for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
    const [, start, end, offset] = templateMapping.exec(line) ?? []
    if (start === undefined || end === undefined || offset === undefined) continue
    const address = Number.parseInt(start, 16)
    mappings.push({ address, bytes: Number.parseInt(end, 16) - address, offset: Number.parseInt(offset, 16) })
  }
  if (mappings.length === 0) throw ended()
  return mappings
}

/** What a running machine's memory was mapped from. */
export function memoryBaseOf(pid: number): "template" | "empty" {
  return readFileSync(`/proc/${pid}/maps`, "utf8").includes(`/memfd:${emptyMemoryName} `)
    ? "empty"
    : "template"
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

/** Writes a stopped process's own pages to `fd`. Gives the bytes written and a checksum over them. */
export async function saveOwnMemory(options: {
  pid: number
  fd: number
  signal?: AbortSignal | undefined
}): Promise<{ bytes: number; checksum: string }> {
  const mappings = mappingsOf(options.pid)
  const found = mappings.map((mapping) => ({ mapping, runs: ownRuns(options.pid, mapping) }))
  const runs = found.flatMap((one) => one.runs)

  const header = Buffer.alloc(headerBytes + runs.length * runBytes)
  magic.copy(header)
  header.writeUInt32LE(version, 8)
  header.writeUInt32LE(runs.length, 12)
  for (const [index, run] of runs.entries()) {
    header.writeUInt32LE(run.page, headerBytes + index * runBytes)
    header.writeUInt32LE(run.pages, headerBytes + index * runBytes + 4)
  }
  const sum = new Checksum()
  sum.add(header)
  writeFully(options.fd, header, 0)
  let written = header.length

  const memory = openSync(`/proc/${options.pid}/mem`, "r")
  const buffer = Buffer.allocUnsafe(sliceBytes)
  let filled = 0
  const flush = async () => {
    if (filled === 0) return
    const slice = buffer.subarray(0, filled)
    sum.add(slice)
    writeFully(options.fd, slice, written)
    startWriteback(options.fd, written, filled)
    written += filled
    filled = 0
    await yieldTurn()
    options.signal?.throwIfAborted()
  }
  try {
    for (const { mapping, runs: own } of found) {
      for (const run of own) {
        const address = mapping.address + (run.page * pageBytes - mapping.offset)
        for (let done = 0; done < run.pages * pageBytes; ) {
          const take = Math.min(run.pages * pageBytes - done, sliceBytes - filled)
          readFully(memory, buffer.subarray(filled, filled + take), address + done, ended)
          filled += take
          done += take
          if (filled === sliceBytes) await flush()
        }
      }
    }
    await flush()
  } finally {
    closeSync(memory)
  }
  return { bytes: written, checksum: sum.value() }
}

/** Puts saved pages into a process that has mapped the template but not run yet. */
export async function loadOwnMemory(options: { pid: number; path: string; checksum: string }): Promise<void> {
  const mappings = mappingsOf(options.pid)
  const file = openSync(options.path, "r")
  try {
    const start = Buffer.alloc(headerBytes)
    readFully(file, start, 0, damaged)
    const runCount = start.readUInt32LE(12)
    if (!start.subarray(0, magic.length).equals(magic) || start.readUInt32LE(8) !== version) throw damaged()
    const table = Buffer.alloc(runCount * runBytes)
    readFully(file, table, headerBytes, damaged)
    const sum = new Checksum()
    sum.add(Buffer.concat([start, table]))

    const runs: Run[] = Array.from({ length: runCount }, (_, index) => ({
      page: table.readUInt32LE(index * runBytes),
      pages: table.readUInt32LE(index * runBytes + 4),
    }))
    const endOfPages =
      headerBytes + table.length + pageBytes * runs.reduce((sum, { pages }) => sum + pages, 0)

    const memory = openSync(`/proc/${options.pid}/mem`, "r+")
    const buffer = Buffer.allocUnsafe(sliceBytes)
    let position = headerBytes + table.length
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
      for (const run of runs) {
        const offset = run.page * pageBytes
        const mapping = mappings.find((one) => offset >= one.offset && offset < one.offset + one.bytes)
        if (!mapping || offset + run.pages * pageBytes > mapping.offset + mapping.bytes) throw damaged()
        const address = mapping.address + (offset - mapping.offset)
        for (let done = 0; done < run.pages * pageBytes; ) {
          if (taken === filled) await refill()
          const take = Math.min(run.pages * pageBytes - done, filled - taken)
          writeFully(memory, buffer.subarray(taken, taken + take), address + done)
          taken += take
          done += take
        }
      }
    } finally {
      closeSync(memory)
    }
    if (sum.value() !== options.checksum) throw damaged()
  } finally {
    closeSync(file)
  }
}

/** Its memory is gone, and what is read from or written to it is nothing. */
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
