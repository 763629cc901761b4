/** Sparse local files as archives and back, and the maps of hostile sandboxes. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { type Header, pack } from "tar-stream"
import { packTree } from "./pack.ts"
import { sparseFileOf, sparseHeaderOf } from "./sparse.ts"
import { unpackTree } from "./unpack.ts"

const mib = 1024 * 1024
let here = ""
beforeEach(() => {
  here = mkdtempSync(join(tmpdir(), "bhatti-sparse-"))
})
afterEach(() => rmSync(here, { recursive: true }))

async function makeSparse(path: string, size: number, offsets: readonly number[]): Promise<void> {
  const file = await open(path, "w")
  for (const offset of offsets)
    await file.write(crypto.getRandomValues(new Uint8Array(5000)), 0, 5000, offset)
  await file.truncate(size)
  await file.close()
}

const sha256 = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex")
const long = "ü".repeat(120)
const files: Record<string, [size: number, offsets: number[]]> = {
  "src/middle": [16 * mib, [0, 5 * mib, 15 * mib]],
  "src/hole": [8 * mib, []],
  [`src/${long}`]: [4 * mib + 123, [4 * mib - 5000]],
  "src/dense": [5000, [0]],
}

async function makeTree(): Promise<void> {
  mkdirSync(join(here, "src"))
  for (const [path, [size, offsets]] of Object.entries(files))
    await makeSparse(join(here, path), size, offsets)
}

function expectSame(root: string): void {
  for (const [path, [size]] of Object.entries(files)) {
    const [from, to] = [join(here, path), join(root, path.slice(4))]
    const [about, copied] = [statSync(from), statSync(to)]
    expect([path, copied.size, sha256(to)]).toEqual([path, size, sha256(from)])
    expect(copied.blocks).toBeLessThanOrEqual(about.blocks + 64)
  }
}

test("a local tree stays sparse through an archive, which is as small as its data", async () => {
  await makeTree()
  let bytes = 0
  async function* counted() {
    for await (const piece of packTree(join(here, "src"), "top").stream) {
      bytes += piece.length
      yield piece
    }
  }
  const { entries, bytes: unpacked } = await unpackTree(counted(), join(here, "to"))
  expect([entries, unpacked]).toEqual([5, 28 * mib + 123 + 5000])
  expectSame(join(here, "to"))
  expect(bytes).toBeLessThan(mib)
})

test("tar understands it", async () => {
  await makeTree()
  const archive = join(here, "a.tar")
  await Bun.write(archive, new Response(packTree(join(here, "src"), "top").stream as never))
  const tar = Bun.spawnSync(["tar", "xf", archive, "-C", here])
  expect(tar.stderr.toString()).toBe("")
  expectSame(join(here, "top"))
})

test("zeros of an ordinary archive become holes", async () => {
  const packing = pack()
  const content = Buffer.alloc(4 * mib)
  content.write("end", content.length - 3)
  packing.entry({ name: "top", type: "directory" })
  packing.entry({ name: "top/file" }, content)
  packing.finalize()
  await unpackTree(packing as AsyncIterable<unknown> as AsyncIterable<Uint8Array>, join(here, "to"))
  const path = join(here, "to/file")
  expect(content.equals(readFileSync(path))).toBe(true)
  expect(statSync(path).blocks).toBeLessThan(1024)
})

async function partsOf(header: object, pieces: Uint8Array[]): Promise<number> {
  async function* content() {
    yield* pieces
  }
  let size = 0
  const file = sparseFileOf(header as Header, content())
  for await (const part of file?.parts ?? []) size += "hole" in part ? part.hole : part.length
  return size
}

test("whatever the map says, the file has the announced size, or the copy fails", async () => {
  const number = fc.oneof(fc.nat(5000), fc.constantFrom(2 ** 53, 1e300, -1, 0.5))
  const table = fc.array(number, { maxLength: 9 }).map((numbers) => numbers.map((one) => `${one}\n`).join(""))
  const honest = fc.array(fc.tuple(fc.nat(100), fc.nat(100)), { maxLength: 5 }).map((steps) => {
    let at = 0
    const extents = steps.map(([gap, length]) => {
      const offset = at + gap
      at = offset + length
      return { offset, length }
    })
    const data = extents.reduce((sum, { length }) => sum + length, 0)
    const { pax, map } = sparseHeaderOf("x", at, extents)
    return { pax, content: Buffer.concat([map, Buffer.alloc(data, 1)]), size: at }
  })
  const lie = fc
    .record({ table, rest: fc.uint8Array({ maxLength: 1000 }), size: number })
    .map(({ table: text, rest, size }) => ({
      pax: { ...sparseHeaderOf("x", 0, []).pax, "GNU.sparse.realsize": `${size}` },
      content: Buffer.concat([Buffer.from(text), rest]),
      size,
    }))
  let isAnyWhole = false
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(honest, lie),
      fc.integer({ min: 1, max: 700 }),
      async ({ pax, content, size }, step) => {
        const pieces: Uint8Array[] = []
        for (let at = 0; at < content.length; at += step) pieces.push(content.subarray(at, at + step))
        try {
          expect(await partsOf({ name: "GNUSparseFile.0/x", pax }, pieces)).toBe(size)
          isAnyWhole = true
        } catch (error) {
          expect(error).toBeInstanceOf(AppError)
        }
      },
    ),
  )
  expect(isAnyWhole).toBe(true)
})

test("a name in a map leads outside no more than any other", async () => {
  for (const name of ["../x", "/x", "top/../../x"]) {
    const { pax, map } = sparseHeaderOf(name, 0, [])
    const packing = pack()
    packing.entry({ name: "GNUSparseFile.0/x", size: map.length, pax }, map)
    packing.finalize()
    const unpacking = unpackTree(
      packing as AsyncIterable<unknown> as AsyncIterable<Uint8Array>,
      join(here, "to"),
    )
    await expect(unpacking).rejects.toBeInstanceOf(AppError)
  }
})
