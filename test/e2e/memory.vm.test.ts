/**
 * Memory byte by byte, on real machines: what is saved is exactly what a machine had, on both sides of the hole below 4
 * GiB too, and nothing that a sandbox does reaches its template.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { closeSync, openSync, readdirSync, readFileSync, readSync } from "node:fs"
import { join } from "node:path"
import type { Snapshot } from "@bhatti/contract/snapshot"
import { type Installation, install, until } from "../support/installation.ts"
import { machineOf, Requests } from "../support/requests.ts"
import { mappedTemplateHashes, templateHashes, templateOfSize } from "../support/templates.ts"

const pageBytes = 4096
const gibibyte = 1024 ** 3
/** In a machine with more than 2.75 GiB, QEMU puts this much below the hole, and the rest above 4 GiB. */
const belowHoleBytes = 2 * gibibyte
/** By hand more: STRESS_CLONES=50. */
const stressClones = Number(process.env["STRESS_CLONES"] ?? 1)

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ isForked: true, config: "warm_after: 0\n" })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

async function ok(method: string, path: string, body?: unknown): Promise<unknown> {
  const reply = await requests.send(method, path, body)
  expect([path, reply.status, reply.status < 300 ? "" : reply.body]).toEqual([path, reply.status, ""])
  return reply.body
}

/** Paused by the thermal loop: from now on nothing in it changes. */
async function letPause(name: string): Promise<number> {
  await ok("PATCH", `/sandboxes/${name}`, { warm_after: 1 })
  const isWarm = async () => (await requests.show(name))?.thermal === "warm"
  await until(`${name} is paused`, isWarm, { deadlineMs: 60_000 })
  await ok("PATCH", `/sandboxes/${name}`, { warm_after: 0 })
  return machineOf(own, (await requests.show(name))?.id ?? "")
}

type Run = { page: number; pages: number }

/** The saved pages, by their place in the machine's memory; the format is in src/machine/own-memory.ts. */
class SavedMemory {
  readonly runs: Run[] = []
  /** Runs of pages of which only the place is kept. */
  readonly zeroRuns: Run[] = []
  readonly #bytes: Buffer
  readonly #places = new Map<number, number>()
  readonly #zeros = new Set<number>()

  constructor(path: string) {
    this.#bytes = readFileSync(path)
    expect(this.#bytes.subarray(0, 8).toString()).toBe("BHATTIPG")
    expect(this.#bytes.readUInt32LE(8)).toBe(2)
    const [count, zeroCount] = [this.#bytes.readUInt32LE(12), this.#bytes.readUInt32LE(16)]
    const table = this.#bytes.length - (count + zeroCount) * 8
    let place = 24
    for (let index = 0; index < count + zeroCount; index++) {
      const page = this.#bytes.readUInt32LE(table + index * 8)
      const pages = this.#bytes.readUInt32LE(table + index * 8 + 4)
      const isZero = index >= count
      ;(isZero ? this.zeroRuns : this.runs).push({ page, pages })
      for (let at = page; at < page + pages; at++) {
        if (isZero) this.#zeros.add(at)
        else this.#places.set(at, place)
        if (!isZero) place += pageBytes
      }
    }
    expect(place).toBe(table)
  }

  page(page: number): Buffer | undefined {
    if (this.#zeros.has(page)) return Buffer.alloc(pageBytes)
    const place = this.#places.get(page)
    return place === undefined ? undefined : this.#bytes.subarray(place, place + pageBytes)
  }

  /** Pages that hold these bytes. */
  pagesWith(bytes: Buffer): number[] {
    return [...this.#places.keys()].filter((page) => this.page(page)?.includes(bytes))
  }
}

/**
 * Compares each page that the process has touched with the saved one, and where none was saved with the template's: so
 * nothing that differs from the template is missing, and nothing that was saved is wrong.
 */
function comparePages(
  pid: number,
  saved: SavedMemory,
  templateMemory: string,
): { compared: number; wrong: number[] } {
  const memory = openSync(`/proc/${pid}/mem`, "r")
  const pagemap = openSync(`/proc/${pid}/pagemap`, "r")
  const template = openSync(templateMemory, "r")
  const isTouched = (1n << 63n) | (1n << 62n)
  let compared = 0
  const wrong: number[] = []
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
      if (!line.includes("/memfd:bhatti-template")) continue
      const [start = 0, end = 0] = (line.split(" ")[0] ?? "")
        .split("-")
        .map((word) => Number.parseInt(word, 16))
      const offset = Number.parseInt(line.split(" ")[2] ?? "", 16)
      const entries = new BigUint64Array((end - start) / pageBytes)
      readSync(pagemap, new Uint8Array(entries.buffer), 0, entries.byteLength, (start / pageBytes) * 8)
      const actual = Buffer.alloc(pageBytes)
      const unchanged = Buffer.alloc(pageBytes)
      for (const [index, entry] of entries.entries()) {
        if ((entry & isTouched) === 0n) continue
        const page = offset / pageBytes + index
        readSync(memory, actual, 0, pageBytes, start + index * pageBytes)
        const expected = saved.page(page)
        if (!expected) readSync(template, unchanged, 0, pageBytes, page * pageBytes)
        compared++
        if (!actual.equals(expected ?? unchanged)) wrong.push(page)
      }
    }
  } finally {
    for (const fd of [memory, pagemap, template]) closeSync(fd)
  }
  return { compared, wrong }
}

/** Compares a paused machine's memory with its snapshot. */
async function snapshotAndCompare(name: string, memoryMib: number): Promise<SavedMemory> {
  const pid = await letPause(name)
  const { id } = (await ok("POST", `/sandboxes/${name}/checkpoint`, { name: `of-${name}` })) as Snapshot
  expect((await requests.show(name))?.thermal).toBe("warm")
  const saved = new SavedMemory(join(own.dataDir, "snapshots", id, "snapshot", "memory"))
  const { compared, wrong } = comparePages(pid, saved, join(templateOfSize(own, memoryMib), "memory"))
  const ownPages = [...saved.runs, ...saved.zeroRuns].reduce((sum, { pages }) => sum + pages, 0)
  console.log(`${name}: ${compared} pages compared, ${ownPages} of them its own`)
  expect(compared).toBeGreaterThan(ownPages)
  expect(wrong).toEqual([])
  return saved
}

/** The process that counts waits for less than a second at a time, so it is no job that keeps its sandbox awake. */
const fill = `cd /dev/shm && head -c 24000000 /dev/urandom > big && sha256sum big > sum
  head -c 8000000 /dev/urandom > gone && rm gone && head -c 4000000 /dev/zero > zeros
  echo 0 > count
  python3 -c 'import time
for i in range(1000000): print(i, file=open("count", "w")); time.sleep(.5)' >/dev/null 2>&1 & echo $! > pid`
const counted = async (name: string) => Number(await requests.output(name, "cat /dev/shm/count"))

/** It went on from the memory it had: not one bit of a large file is different, and its process counts on. */
async function isWhole(name: string, countBefore: number): Promise<void> {
  const script =
    "cd /dev/shm && sha256sum -c sum && kill -0 $(cat pid) && cmp -n 4000000 zeros /dev/zero && echo whole"
  expect(await requests.output(name, script)).toBe("big: OK\nwhole\n")
  await until(`the process of ${name} counts on`, async () => (await counted(name)) > countBefore)
  expect((await requests.show(name))?.status_reason).toBeNull()
}

test("a snapshot holds every page that its machine had, and each sandbox made from it has the same memory", async () => {
  await ok("POST", "/sandboxes", { name: "dev" })
  await requests.output("dev", fill)
  const before = await counted("dev")
  const saved = await snapshotAndCompare("dev", 512)
  // Pages written with zeros differ from a template that has something else there.
  expect(saved.zeroRuns.length).toBeGreaterThan(0)
  for (const name of ["one", "two"]) await ok("POST", "/snapshots/of-dev/resume", { name })
  for (const name of ["dev", "one", "two"]) await isWhole(name, before)
  for (let round = 0; round < 3; round++) {
    const count = await counted("one")
    await ok("POST", "/sandboxes/one/stop")
    await isWhole("one", count)
  }
  // Saved once more, after it was restored: what it has now is not what its template had.
  await ok("DELETE", "/snapshots/of-dev")
  await snapshotAndCompare("one", 512)
  await ok("DELETE", "/snapshots/of-one")
  for (const name of ["dev", "one", "two"]) await ok("DELETE", `/sandboxes/${name}`)
}, 300_000)

test("memory above the hole below 4 GiB survives stops, copies and snapshots", async () => {
  await ok("POST", "/sandboxes", { name: "large", memory_mb: 4096 })
  const marker = crypto.randomUUID()
  await requests.output("large", `${fill}; echo ${marker} > /dev/shm/marker`)
  const before = await counted("large")
  const saved = await snapshotAndCompare("large", 4096)
  const above = saved.pagesWith(Buffer.from(marker)).filter((page) => page * pageBytes >= belowHoleBytes)
  expect(above).not.toEqual([])
  expect(saved.runs.some(({ page }) => page * pageBytes < belowHoleBytes)).toBe(true)

  await ok("POST", "/sandboxes/large/stop")
  await isWhole("large", before)
  await ok("POST", "/sandboxes", { name: "copy", from: "large" })
  await ok("POST", "/snapshots/of-large/resume", { name: "resumed" })
  for (const name of ["large", "copy", "resumed"]) {
    await isWhole(name, before)
    expect(await requests.output(name, "cat /dev/shm/marker")).toBe(`${marker}\n`)
    await ok("DELETE", `/sandboxes/${name}`)
  }
  await ok("DELETE", "/snapshots/of-large")
}, 400_000)

const stress = `cd /dev/shm && dd if=/dev/zero of=stress bs=1M count=60 2>/dev/null && rm stress && echo mine > nonce
  head -c 5000000 /dev/urandom > /workspace/stress && sync && rm /workspace/stress
  sudo sh -c 'echo 3 > /proc/sys/vm/drop_caches; fstrim /'; echo done`

test("templates do not change, whatever sandboxes do with their memory and disks", async () => {
  await ok("POST", "/sandboxes", { name: "first" })
  const files = templateHashes(own)
  const mapped = mappedTemplateHashes(own)
  expect(mapped.length).toBeGreaterThan(0)
  for (let index = 0; index < stressClones; index++) {
    const name = `s${index}`
    await ok("POST", "/sandboxes", { name })
    expect(await requests.output(name, stress)).toBe("done\n")
    await ok("POST", "/sandboxes", { name: `${name}-copy`, from: name })
    await ok("POST", `/sandboxes/${name}/stop`)
    for (const one of [name, `${name}-copy`])
      expect(await requests.output(one, "cat /dev/shm/nonce")).toBe("mine\n")
    for (const one of [name, `${name}-copy`]) await ok("DELETE", `/sandboxes/${one}`)
  }
  expect(templateHashes(own)).toEqual(files)
  expect(mappedTemplateHashes(own)).toEqual(mapped)
  // Nor in what the next one gets: it starts as the first one did.
  await ok("POST", "/sandboxes", { name: "last" })
  expect(await requests.output("last", "ls /dev/shm /workspace; hostname")).toBe(
    "/dev/shm:\n\n/workspace:\nlast\n",
  )
  expect(readdirSync(join(own.dataDir, "snapshots"))).toEqual([])
  for (const name of ["first", "last"]) await ok("DELETE", `/sandboxes/${name}`)
}, 600_000)
