/** Archives of images and of root file systems are told apart by their contents, and read. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { AppError } from "@bhatti/contract/errors"
import { readExt4Tree } from "../../test/support/ext4-tree.ts"
import { blobPath, digestOf, writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { type ReadArchive, readArchive } from "./archive.ts"
import { unpackImage } from "./unpack.ts"

const uid = 799_000
let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "bhatti-archive-"))
})
afterAll(() => rm(root, { recursive: true, force: true }))

const layer = tarOf([{ name: "hello", content: "world" }])
const config = {
  architecture: "amd64",
  os: "linux",
  config: { Cmd: ["/hello"] },
  rootfs: { type: "layers", diff_ids: [digestOf(layer)] },
}

async function read(bytes: Uint8Array): Promise<ReadArchive> {
  const directory = await mkdtemp(join(root, "work-"))
  return readArchive({ archive: new Blob([Buffer.from(bytes)]).stream(), directory, uid })
}

async function reasonOf(bytes: Uint8Array): Promise<string | undefined> {
  const directory = await mkdtemp(join(root, "work-"))
  try {
    await readArchive({ archive: new Blob([Buffer.from(bytes)]).stream(), directory, uid })
    return undefined
  } catch (error) {
    expect(await readdir(directory)).toEqual([])
    if (error instanceof AppError) return error.reason
    throw error
  }
}

/** Makes the disk of an archive's layers. */
async function unpacked(archive: ReadArchive) {
  if (archive.kind !== "layers") throw new Error("it has no layers")
  const directory = await mkdtemp(join(root, "disk-"))
  const image = await unpackImage({ ...archive, directory, uid })
  return { tree: readExt4Tree(image.disk), config: image.config }
}

const saved = (more: TarEntry[] = [], layers = ["a/layer.tar"], diffIds = [digestOf(layer)]): TarEntry[] => [
  { name: "a/", type: "5" },
  {
    name: "config.json",
    content: JSON.stringify({ ...config, rootfs: { type: "layers", diff_ids: diffIds } }),
  },
  {
    name: "manifest.json",
    content: JSON.stringify([{ Config: "config.json", RepoTags: ["app:1"], Layers: layers }]),
  },
  ...more,
]

test("a root file system becomes a disk, plain, with gzip and with zstd, and an equal one for equal bytes", async () => {
  const archive = tarOf([
    { name: "./", type: "5", mode: 0o755 },
    { name: "./etc/", type: "5", mode: 0o755 },
    { name: "./etc/hostname", content: "here" },
    // Neither makes it an image: the documents have other contents.
    { name: "./manifest.json", content: '{"name":"an app"}' },
    { name: "./index.json", content: "{}" },
  ])
  for (const bytes of [archive, gzipSync(archive), zstdCompressSync(archive)]) {
    const found = await read(bytes)
    if (found.kind !== "disk") throw new Error("it is no disk")
    expect(`sha256:${found.id}`).toBe(digestOf(archive))
    expect(readExt4Tree(found.image.disk).get("etc/hostname")?.content?.toString()).toBe("here")
    await rm(found.image.disk)
  }
})

test("a save of Docker becomes a layout, also with compressed layers, links and a layer that occurs twice", async () => {
  const found = await read(gzipSync(tarOf(saved([{ name: "a/layer.tar", content: layer }]))))
  expect(found).toMatchObject({ kind: "layers", names: ["app:1"] })
  const image = await unpacked(found)
  expect(image.tree.get("hello")?.content?.toString()).toBe("world")
  expect(image.config.cmd).toEqual(["/hello"])

  const twice = saved(
    [
      { name: "a/layer.tar", content: gzipSync(layer) },
      { name: "b/layer.tar", type: "2", linkname: "../a/layer.tar" },
    ],
    ["a/layer.tar", "b/layer.tar"],
    [digestOf(layer), digestOf(layer)],
  )
  expect((await unpacked(await read(tarOf(twice)))).tree.get("hello")?.size).toBe(5)
})

test("an OCI layout becomes a layout, and its image for this platform is chosen", async () => {
  const layout = await mkdtemp(join(root, "layout-"))
  const digest = await writeImage(layout, [layer])
  const inner = JSON.stringify({
    schemaVersion: 2,
    manifests: [
      { digest: digestOf(layer), platform: { os: "linux", architecture: "arm64" } },
      { digest, platform: { os: "linux", architecture: "amd64" } },
      { digest: digestOf(layer), platform: { os: "unknown", architecture: "unknown" } },
    ],
  })
  const outer = {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: "application/vnd.oci.image.index.v1+json",
        digest: digestOf(Buffer.from(inner)),
        annotations: { "org.opencontainers.image.ref.name": "latest" },
      },
    ],
  }
  const blobs: TarEntry[] = []
  for (const name of await readdir(join(layout, "blobs", "sha256"))) {
    const bytes = await Bun.file(blobPath(layout, `sha256:${name}`)).bytes()
    blobs.push({ name: `blobs/sha256/${name}`, content: bytes })
  }
  const found = await read(
    tarOf([
      ...blobs,
      { name: `blobs/sha256/${digestOf(Buffer.from(inner)).slice(7)}`, content: inner },
      { name: "index.json", content: JSON.stringify(outer) },
      { name: "oci-layout", content: '{"imageLayoutVersion":"1.0.0"}' },
    ]),
  )
  expect(found).toMatchObject({ kind: "layers", manifestDigest: digest, names: ["latest"] })
  expect((await unpacked(found)).tree.get("hello")?.size).toBe(5)
})

test("what is no archive, or one of several images, is refused with its reason and leaves nothing", async () => {
  expect(await reasonOf(Buffer.from("hello\n".repeat(1000)))).toBe("bad_archive")
  expect(await reasonOf(Buffer.alloc(0))).toBe("bad_archive")
  expect(await reasonOf(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 0]))).toBe("bad_compression")
  expect(await reasonOf(gzipSync(layer).subarray(0, 60))).toBe("truncated")
  expect(await reasonOf(layer.subarray(0, 514))).toBe("truncated")
  expect(await reasonOf(tarOf(saved()))).toBe("missing_blob")
  const layers = [{ name: "a/layer.tar", content: layer }]
  expect(await reasonOf(tarOf(saved(layers, ["a/layer.tar"], [])))).toBe("bad_archive")
  expect(await reasonOf(tarOf(saved(layers, ["/etc/passwd"])))).toBe("missing_blob")
  const two = {
    name: "manifest.json",
    content: JSON.stringify([1, 2].map(() => ({ Config: "c", Layers: [] }))),
  }
  expect(await reasonOf(tarOf([two]))).toBe("several_images")
  const other = { manifests: [{ digest: "sha256:1", platform: { os: "linux", architecture: "arm64" } }] }
  const layout = { name: "oci-layout", content: '{"imageLayoutVersion":"1.0.0"}' }
  expect(await reasonOf(tarOf([layout, { name: "index.json", content: JSON.stringify(other) }]))).toBe(
    "wrong_platform",
  )
})

test("an archive longer than the limit is refused while it is read", async () => {
  const directory = await mkdtemp(join(root, "work-"))
  const archive = new Blob([tarOf([{ name: "long", content: Buffer.alloc(1024 * 1024) }])]).stream()
  const work = readArchive({ archive, directory, uid, limits: { compressedBytes: 100_000 } })
  expect(work).rejects.toMatchObject({ reason: "too_many_bytes", code: "too_large" })
  await work.catch(() => undefined)
  expect(await readdir(directory)).toEqual([])
})

test("a layer of an archive that is not what its configuration says is refused when it is unpacked", async () => {
  const other = tarOf([{ name: "evil", content: "" }])
  const found = await read(tarOf(saved([{ name: "a/layer.tar", content: other }])))
  expect(unpacked(found)).rejects.toMatchObject({ reason: "wrong_digest" })
  if (found.kind === "layers") expect(existsSync(join(found.layout, "..", "content"))).toBe(false)
})
