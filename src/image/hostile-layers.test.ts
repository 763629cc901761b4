/**
 * Layers that attack: each is refused with its reason, or is unpacked inside its own tree. Around the work are files
 * that must not change, at paths that the layers know.
 */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test"
import { type FSWatcher, watch } from "node:fs"
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { AppError } from "@bhatti/contract/errors"
import { readExt4Tree } from "../../test/support/ext4-tree.ts"
import {
  blobPath,
  type LayeredImageOptions,
  type WrittenBlob,
  writeImage,
} from "../../test/support/oci-layout.ts"
import { type TarEntry, tarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { runProgram } from "../lib/program.ts"
import { unpackImage } from "./unpack.ts"

const limits = { unpackedBytes: 64 * 1024 * 1024, entries: 1000, freeBytes: 1024 * 1024, timeoutMs: 60_000 }
const root = await mkdtemp(join(tmpdir(), "bhatti-hostile-"))
const outside = join(root, "outside")
const canary = join(outside, "canary")
const events: string[] = []
let watcher: FSWatcher

beforeAll(async () => {
  await mkdir(outside)
  await writeFile(canary, "untouched")
  watcher = watch(outside, (kind, name) => events.push(`${kind} ${name}`))
})
afterAll(async () => {
  watcher.close()
  await rm(root, { recursive: true, force: true })
})
afterEach(async () => {
  expect(events).toEqual([])
  expect(await readdir(outside)).toEqual(["canary"])
  expect(await readFile(canary, "utf8")).toBe("untouched")
})

const folder = (name: string): TarEntry => ({ name, type: "5", mode: 0o755 })
const link = (name: string, linkname: string): TarEntry => ({ name, type: "2", linkname })
const hard = (name: string, linkname: string): TarEntry => ({ name, type: "1", linkname })
const file = (name: string, content = "evil"): TarEntry => ({ name, content })
const owned = (name: string, pax: Record<string, string>): TarEntry => ({ name, pax })

type Attack = { layers: (TarEntry[] | Uint8Array)[] } & LayeredImageOptions & {
    /** Changes the layout after it is written. */
    spoil?: (path: string, layout: string) => Promise<unknown>
  }

async function attack({ layers, spoil, ...options }: Attack) {
  const layout = await mkdtemp(join(root, "layout-"))
  const directory = await mkdtemp(join(root, "work-"))
  let blobs: WrittenBlob[] = []
  const archives = layers.map((layer) => (layer instanceof Uint8Array ? layer : tarOf(layer)))
  const manifestDigest = await writeImage(layout, archives, {
    ...options,
    manifest: (manifest) => {
      blobs = manifest.layers
      return options.manifest?.(manifest) ?? manifest
    },
  })
  await spoil?.(blobPath(layout, blobs.at(-1)?.digest ?? ""), layout)
  try {
    const { disk } = await unpackImage({ layout, manifestDigest, directory, uid: 799_000, limits })
    await runProgram(["e2fsck", "-fn", disk], { deadlineMs: 60_000 })
    return { tree: readExt4Tree(disk) }
  } catch (error) {
    if (!(error instanceof AppError)) throw error
    expect(["invalid", "too_large"]).toContain(error.code)
    expect(await readdir(directory)).toEqual([])
    return { reason: error.reason }
  } finally {
    await rm(directory, { recursive: true, force: true })
    await rm(layout, { recursive: true, force: true })
  }
}

const hops = Array.from({ length: 42 }, (_, index) => link(`hop${index}`, `hop${index + 1}`))
const gnuSparse = (realsize: string, map: string): TarEntry => ({
  name: "GNUSparseFile.0/sparse",
  content: map.padEnd(512, "\0"),
  pax: {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "sparse",
    "GNU.sparse.realsize": realsize,
  },
})
const noise = Array.from({ length: 2000 }, (_, index) => (index * 7919) % 1009)
const zeros = Buffer.alloc(100 * 1024 * 1024)

const refused: Record<string, [reason: string, attack: Attack]> = {
  "a name that leads upwards": ["bad_path", { layers: [[file("../outside/canary")]] }],
  "a name that leads upwards in its middle": [
    "bad_path",
    { layers: [[folder("a"), file("a/../../outside/canary")]] },
  ],
  "a name that ends upwards": ["bad_path", { layers: [[folder("a"), folder("a/..")]] }],
  "links in a circle on the way": ["bad_path", { layers: [[link("a", "b"), link("b", "a"), file("a/f")]] }],
  "more links on the way than the kernel follows": ["bad_path", { layers: [[...hops, file("hop0/f")]] }],
  "a file below a file": ["bad_path", { layers: [[file("f"), file("f/g")]] }],
  "a root that is a link": ["bad_root", { layers: [[link(".", outside), file("canary")]] }],
  "a root that is a file": ["bad_root", { layers: [[file("/")]] }],
  "a hard link to a file outside": ["missing_target", { layers: [[hard("x", canary), file("x")]] }],
  "a hard link upwards": ["bad_path", { layers: [[hard("x", "../outside/canary")]] }],
  "a hard link through a link that leads outside": [
    "missing_target",
    { layers: [[link("x", outside), hard("y", "x/canary"), file("y")]] },
  ],
  "a hard link to a directory": ["bad_link", { layers: [[folder("d"), hard("x", "d")]] }],
  "a hard link to the root": ["bad_link", { layers: [[hard("x", "/")]] }],
  "a hard link to itself": ["missing_target", { layers: [[hard("x", "x")]] }],
  "hard links to each other": ["missing_target", { layers: [[hard("x", "y"), hard("y", "x")]] }],
  "a link without a target": ["bad_link", { layers: [[link("x", "")]] }],
  "a link with a target longer than any path": ["bad_link", { layers: [[link("x", "t".repeat(4096))]] }],
  "a whiteout of no name": ["bad_whiteout", { layers: [[folder("d")], [file("d/.wh.")]] }],
  "a whiteout of the directory itself": ["bad_whiteout", { layers: [[folder("d")], [file("d/.wh..")]] }],
  "a whiteout of the directory above": ["bad_whiteout", { layers: [[folder("d")], [file("d/.wh...")]] }],
  "a file below a whiteout": ["bad_whiteout", { layers: [[folder(".wh.d"), file(".wh.d/f")]] }],
  "a file that ends before its size": ["truncated", { layers: [tarEntry({ ...file("f"), size: 10_000 })] }],
  "a header that ends in its middle": ["truncated", { layers: [tarEntry(file("f")).subarray(0, 300)] }],
  "a size of 8 EiB": [
    "too_many_bytes",
    { layers: [[{ ...file("f"), size: 2 ** 63 - 1024, isBase256: true }]] },
  ],
  "a negative size": ["bad_archive", { layers: [[{ ...file("f"), size: -1, isBase256: true }]] }],
  "a size of 1 TiB in an extended header": [
    "too_many_bytes",
    { layers: [[owned("f", { size: `${2 ** 40}` })]] },
  ],
  "a sparse file of 1 EiB": ["too_many_bytes", { layers: [[gnuSparse(`${2n ** 60n}`, "0\n")]] }],
  "a map of a sparse file that overlaps": [
    "bad_archive",
    { layers: [[gnuSparse("4096", "2\n0\n512\n256\n512\n")]] },
  ],
  "a map of a sparse file without end": ["truncated", { layers: [[gnuSparse("4096", "99999999999\n")]] }],
  "a header with a wrong checksum": ["bad_archive", { layers: [[{ ...file("f"), checksumError: 1 }]] }],
  "an extended header with a wrong length": [
    "bad_archive",
    { layers: [tarOf([{ name: "pax", type: "x", content: "99 path=x\n" }, file("f")])] },
  ],
  "an extended header of 8 MiB": [
    "bad_archive",
    { layers: [[owned("f", { comment: "c".repeat(8 * 1024 ** 2) })]] },
  ],
  "a name with a NUL": ["bad_archive", { layers: [[owned("f", { path: "a\0b" })]] }],
  "a name of 256 bytes": ["name_too_long", { layers: [[file("n".repeat(256))]] }],
  "a path of more than 4095 bytes": [
    "name_too_long",
    { layers: [[file(Array.from({ length: 21 }, () => "n".repeat(200)).join("/"))]] },
  ],
  "a path that links make longer than 4095 bytes": [
    "name_too_long",
    {
      layers: [
        [
          link("l", Array.from({ length: 20 }, () => "n".repeat(200)).join("/")),
          file(`l/${"m".repeat(100)}`),
        ],
      ],
    },
  ],
  "200 directories in each other": ["too_deep", { layers: [[folder(Array(200).fill("d").join("/"))]] }],
  "more files than the limit": [
    "too_many_entries",
    { layers: [Array.from({ length: 1001 }, (_, index) => file(`f${index}`, ""))] },
  ],
  "the same file more often than the limit": [
    "too_many_entries",
    { layers: [600, 600].map((length) => Array.from({ length }, () => file("f", ""))) },
  ],
  "a device with a number that no kernel has": [
    "bad_device",
    { layers: [[{ name: "d", type: "3", major: 70_000 }]] },
  ],
  "an owner that means nobody": ["bad_owner", { layers: [[owned("f", { uid: "4294967295" })]] }],
  "a negative owner": ["bad_owner", { layers: [[owned("f", { gid: "-1" })]] }],
  "attributes larger than the disk has room for": [
    "too_many_attributes",
    { layers: [[owned("f", { "SCHILY.xattr.user.x": "v".repeat(5000) })]] },
  ],
  "an access list that is none": [
    "bad_attribute",
    { layers: [[owned("f", { "SCHILY.xattr.system.posix_acl_access": "\x02\0\0\0\x99\0\x07\0\0\0\0\0" })]] },
  ],
  "an attribute whose name is two lines": [
    "bad_attribute",
    { layers: [[owned("f", { "SCHILY.xattr.user.x\nrm <2>": "" })]] },
  ],
  "a bomb of zeros": ["too_many_bytes", { layers: [[{ name: "f", content: zeros }]], compression: "gzip" }],
  "a bomb behind the archive's end": ["too_many_bytes", { layers: [zeros], compression: "zstd" }],
  "gzip with damaged data": [
    "bad_compression",
    { layers: [Buffer.from("1f8b0800000000000003ffffffff", "hex")], ...as("gzip") },
  ],
  "gzip that ends too early": [
    "truncated",
    { layers: [gzipSync(tarOf([file("f")])).subarray(0, 60)], ...as("gzip") },
  ],
  "gzip with something behind it": [
    "bad_compression",
    {
      layers: [Buffer.concat([gzipSync(tarOf([file("f")])), Buffer.from("evil".repeat(100))])],
      ...as("gzip"),
    },
  ],
  "zstd with damaged data": [
    "bad_compression",
    { layers: [zstdCompressSync(tarOf([file("f")])).fill(0xff, 4, 12)], ...as("zstd") },
  ],
  "a layer that is not compressed as it says": ["bad_compression", { layers: [[file("f")]], ...as("gzip") }],
  "a compressed layer that says it is not": [
    "bad_archive",
    { layers: [gzipSync(tarOf([file("f", String(noise))]))] },
  ],
  "a blob with other bytes": [
    "wrong_digest",
    { layers: [[file("f")]], spoil: (path) => writeFile(path, tarOf([file("g")])) },
  ],
  "a blob that ends too early": [
    "wrong_size",
    { layers: [[file("f")]], spoil: (path) => truncate(path, 512) },
  ],
  "a blob that is missing": ["missing_blob", { layers: [[file("f")]], spoil: (path) => rm(path) }],
  "a blob that is a link": [
    "missing_blob",
    { layers: [[file("f")]], spoil: (path) => rm(path).then(() => symlink(canary, path)) },
  ],
  "a blob that is a pipe": [
    "missing_blob",
    {
      layers: [[file("f")]],
      spoil: (path) => rm(path).then(() => runProgram(["mkfifo", path], { deadlineMs: 5000 })),
    },
  ],
  "another archive than the configuration names": [
    "wrong_diff_id",
    { layers: [[file("f")]], diffIds: [`sha256:${"0".repeat(64)}`] },
  ],
}

/** Says that blobs are compressed, which are written as they are. */
function as(compression: "gzip" | "zstd"): LayeredImageOptions {
  return {
    manifest: (manifest) => ({
      ...manifest,
      layers: manifest.layers.map((layer) => ({ ...layer, mediaType: `${layer.mediaType}+${compression}` })),
    }),
  }
}

const cases = Object.entries(refused).map(([name, [reason, layers]]) => [name, reason, layers] as const)
test.each(cases)("%s is refused, and nothing outside changes", async (_name, reason, layers) => {
  expect(await attack(layers)).toEqual({ reason })
})

test("absolute names, and links that lead outside, stay inside the tree", async () => {
  const { tree } = await attack({
    layers: [
      [file(canary), link("x", outside), link("y", "../../../../../../.."), link("z", "/proc/self/root")],
      [file("x/planted"), file("y/etc/passwd"), file("z/etc/shadow"), file("x/.wh.canary")],
    ],
  })
  const names = [...(tree?.keys() ?? [])]
  expect(names).toContain(`${outside.slice(1)}/planted`)
  expect(names).not.toContain(canary.slice(1))
  expect(names).toContain("etc/passwd")
  expect(names).toContain("proc/self/root/etc/shadow")
})

test("an opaque root empties the image below, and nothing else", async () => {
  const { tree } = await attack({
    layers: [
      [file("a"), folder("b"), file("b/c")],
      [file(".wh..wh..opq"), file("d")],
    ],
  })
  expect([...(tree?.keys() ?? [])].sort()).toEqual(["", "d"])
})

test("a file in the place of a device, a pipe or a hard link is a new file", async () => {
  const { tree } = await attack({
    layers: [
      [
        { name: "dev", type: "4", major: 8, minor: 0 },
        { name: "pipe", type: "6" },
        file("one", "1"),
        hard("two", "one"),
      ],
      [file("dev"), file("pipe"), file("one")],
    ],
  })
  expect(["dev", "pipe", "one", "two"].map((name) => tree?.get(name)?.content?.toString())).toEqual([
    "evil",
    "evil",
    "evil",
    "1",
  ])
})

test("a layer without entries and a layer of no bytes are layers", async () => {
  const { tree } = await attack({ layers: [tarOf([]), Buffer.alloc(0), [file("f")]] })
  expect([...(tree?.keys() ?? [])]).toEqual(["", "f"])
})
