/** Layers become one disk: what each kind of entry leaves there, and that the same image gives the same bytes. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { chmod, copyFile, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { type DiskEntry, readExt4Tree } from "../../test/support/ext4-tree.ts"
import { type LayeredImageOptions, writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { runProgram } from "../lib/program.ts"
import { hexOf, readLayeredImage } from "./oci-manifest.ts"
import { diskDigest } from "./sparse.ts"
import { type UnpackedImage, unpackImage } from "./unpack.ts"

const uid = 799_000
let root: string
// As the daemon has it.
const umask = process.umask()
beforeAll(async () => {
  process.umask(0o077)
  root = await mkdtemp(join(tmpdir(), "bhatti-unpack-"))
})
afterAll(async () => {
  process.umask(umask)
  await rm(root, { recursive: true, force: true })
})

async function unpack(layers: TarEntry[][], options: LayeredImageOptions = {}): Promise<UnpackedImage> {
  const layout = await mkdtemp(join(root, "layout-"))
  const manifestDigest = await writeImage(layout, layers.map(tarOf), options)
  return unpackImage({ layout, manifestDigest, directory: await mkdtemp(join(root, "work-")), uid })
}

async function treeOf(...layers: TarEntry[][]): Promise<Map<string, DiskEntry>> {
  const { disk } = await unpack(layers)
  await runProgram(["e2fsck", "-fn", disk], { deadlineMs: 60_000 })
  const tree = readExt4Tree(disk)
  await rm(disk)
  return tree
}

const namesOf = (tree: Map<string, DiskEntry>) => [...tree.keys()].filter((name) => name !== "").sort()
const textOf = (tree: Map<string, DiskEntry>, name: string) => tree.get(name)?.content?.toString("latin1")
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  type: "5",
  mode: 0o755,
  ...more,
})

test("modes, owners, times, devices and pipes are on the disk as the layer has them", async () => {
  const tree = await treeOf([
    folder("./", { mode: 0o711, uid: 5, mtime: 99 }),
    { name: "setuid", mode: 0o6755, uid: 1000, gid: 70_000, mtime: 1_000_000_000, content: "x" },
    { name: "closed", mode: 0, content: "secret" },
    { name: "large-id", uid: 4_000_000_000, pax: { gid: "4294967294" } },
    { name: "precise", pax: { mtime: "4000000000.123456789" } },
    { name: "before-1970", pax: { mtime: "-86400.5" } },
    folder("sticky", { mode: 0o1777, gid: 42, mtime: 12 }),
    { name: "null", type: "3", major: 1, minor: 3, mode: 0o666 },
    { name: "disk", type: "4", major: 8, minor: 16, mode: 0o660, gid: 6 },
    { name: "large-device", type: "3", major: 500, minor: 70_000 },
    { name: "pipe", type: "6", mode: 0o622 },
    { name: "link", type: "2", linkname: "../outside", uid: 7 },
  ])
  const facts = (name: string) => {
    const { kind, mode, uid, gid, seconds, nanoseconds, device } = tree.get(name) ?? {}
    return [
      kind,
      mode?.toString(8),
      uid,
      gid,
      seconds,
      nanoseconds,
      ...(device ? [device.major, device.minor] : []),
    ]
  }
  expect(facts("")).toEqual(["directory", "711", 5, 0, 99, 0])
  expect(facts("setuid")).toEqual(["file", "6755", 1000, 70_000, 1_000_000_000, 0])
  expect(facts("closed")).toEqual(["file", "0", 0, 0, 0, 0])
  expect(textOf(tree, "closed")).toBe("secret")
  expect(facts("large-id").slice(2, 4)).toEqual([4_000_000_000, 4_294_967_294])
  expect(facts("precise").slice(4)).toEqual([4_000_000_000, 123_456_789])
  expect(facts("before-1970").slice(4)).toEqual([-86_401, 500_000_000])
  expect(facts("sticky")).toEqual(["directory", "1777", 0, 42, 12, 0])
  expect(facts("null")).toEqual(["char", "666", 0, 0, 0, 0, 1, 3])
  expect(facts("disk")).toEqual(["block", "660", 0, 6, 0, 0, 8, 16])
  expect(facts("large-device").slice(6)).toEqual([500, 70_000])
  expect(facts("pipe")).toEqual(["pipe", "622", 0, 0, 0, 0])
  expect(facts("link")).toEqual(["symlink", "777", 7, 0, 0, 0])
  expect(textOf(tree, "link")).toBe("../outside")
})

test("file capabilities, access lists and users' attributes survive, those of other systems do not", async () => {
  const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
  // Version 2: owner rwx, user 1234 r--, group r-x, mask r-x, others r--.
  const list =
    "\x02\x00\x00\x00" +
    "\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
    "\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
  const tree = await treeOf([
    {
      name: "ping",
      mode: 0o755,
      content: "elf",
      pax: {
        "SCHILY.xattr.security.capability": capability,
        'SCHILY.xattr.user.odd "name" <1>': "any\0\xff\nvalue",
        "SCHILY.xattr.user.long": "v".repeat(3000),
        "SCHILY.xattr.system.posix_acl_access": list,
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.com.apple.quarantine": "0001",
      },
    },
    folder("shared", { pax: { "SCHILY.xattr.system.posix_acl_default": list } }),
    { name: "link", type: "2", linkname: "ping", pax: { "SCHILY.xattr.user.on": "link" } },
    { name: "device", type: "3", major: 1, minor: 3, pax: { "SCHILY.xattr.security.selinux": "label" } },
  ])
  const { [`system.posix_acl_access`]: access, ...others } = tree.get("ping")?.attributes ?? {}
  expect(others).toEqual({
    "security.capability": capability,
    'user.odd "name" <1>': "any\0\xff\nvalue",
    "user.long": "v".repeat(3000),
  })
  // The disk's own form: version 1, and an id only where one is needed.
  const onDisk =
    "\x01\x00\x00\x00\x01\x00\x07\x00\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\x10\x00\x05\x00\x20\x00\x04\x00"
  expect(access).toBe(onDisk)
  expect(tree.get("shared")?.attributes).toEqual({ "system.posix_acl_default": onDisk })
  expect(tree.get("link")?.attributes).toEqual({})
  expect(tree.get("device")?.attributes).toEqual({ "security.selinux": "label" })
})

test("a layer's whiteouts remove from the layers below, never its own entries, whatever their order", async () => {
  const below = [
    folder("a"),
    { name: "a/old", content: "1" },
    { name: "a/both", content: "1" },
    folder("gone"),
    { name: "gone/deep", content: "1" },
    folder("swapped"),
    { name: "swapped/old", content: "1" },
    { name: "file", content: "1" },
  ]
  const own = [folder("a"), { name: "a/both", content: "2" }, { name: "a/new", content: "2" }]
  const whiteouts = [
    { name: "a/.wh..wh..opq" },
    { name: ".wh.gone" },
    { name: "a/.wh.both" },
    { name: ".wh.swapped" },
  ]
  const last = [{ name: "swapped/new", content: "2" }, { name: ".wh.missing" }, { name: "no/such/.wh.thing" }]
  for (const layer of [
    [...whiteouts, ...own, ...last],
    [...own, ...last, ...whiteouts],
  ]) {
    const tree = await treeOf(below, layer)
    expect(namesOf(tree)).toEqual(["a", "a/both", "a/new", "file", "swapped", "swapped/new"])
    expect(textOf(tree, "a/both")).toBe("2")
  }
})

test("an entry of another kind replaces what a lower layer had, with everything below it", async () => {
  const tree = await treeOf(
    [
      folder("x"),
      { name: "x/y", content: "1" },
      { name: "link", type: "2", linkname: "x" },
      { name: "f", content: "1" },
    ],
    [
      { name: "x", type: "2", linkname: "/etc" },
      folder("link", { mode: 0o700 }),
      { name: "link/inside", content: "2" },
      folder("f"),
      { name: "f/g", content: "2" },
    ],
    [folder("x"), { name: "x/z", content: "3" }, { name: "f", type: "6" }],
  )
  expect(namesOf(tree)).toEqual(["f", "link", "link/inside", "x", "x/z"])
  expect(["x", "link", "f"].map((name) => tree.get(name)?.kind)).toEqual(["directory", "directory", "pipe"])
})

test("hard links share a file across layers, before their target, to links and to devices", async () => {
  const tree = await treeOf(
    [
      { name: "early", type: "1", linkname: "later" },
      { name: "later", content: "shared", mode: 0o600 },
      { name: "symlink", type: "2", linkname: "later" },
      { name: "long", type: "2", linkname: "t".repeat(60) },
      { name: "long-2", type: "1", linkname: "long" },
      { name: "null", type: "3", major: 1, minor: 3 },
      { name: "empty" },
      { name: "empty-2", type: "1", linkname: "empty" },
    ],
    [
      { name: "across", type: "1", linkname: "/later" },
      { name: "symlink-2", type: "1", linkname: "symlink" },
      { name: "null-2", type: "1", linkname: "./null" },
      { name: ".wh.early" },
    ],
    [{ name: "later", content: "new" }],
  )
  expect(textOf(tree, "across")).toBe("shared")
  expect(textOf(tree, "later")).toBe("new")
  expect(tree.get("across")?.links).toBe(1)
  expect(textOf(tree, "symlink")).toBe("later")
  expect(textOf(tree, "long-2")).toBe("t".repeat(60))
  for (const [one, other] of [
    ["symlink", "symlink-2"],
    ["long", "long-2"],
    ["null", "null-2"],
    ["empty", "empty-2"],
  ] as const) {
    expect(tree.get(one)?.inode).toBe(tree.get(other)?.inode as number)
    expect(tree.get(one)?.links).toBe(2)
  }
})

test("a directory on the way that is a link is followed inside the image, as the kernel would there", async () => {
  const tree = await treeOf(
    [
      folder("usr/bin"),
      { name: "bin", type: "2", linkname: "usr/bin" },
      { name: "up", type: "2", linkname: "../../usr" },
    ],
    [
      { name: "bin/tool", content: "t" },
      { name: "up/share/doc", content: "d" },
    ],
    [{ name: "bin/.wh.tool" }, { name: "bin/other", content: "o" }],
  )
  expect(namesOf(tree)).toEqual([
    "bin",
    "up",
    "usr",
    "usr/bin",
    "usr/bin/other",
    "usr/share",
    "usr/share/doc",
  ])
})

test("odd names are kept: any byte, 255 bytes, 4095 bytes with the root, names that differ in case", async () => {
  const long = Array.from({ length: 40 }, () => "d".repeat(100)).join("/")
  const names = [
    "\xff\xfe\x01\n\"'",
    "n".repeat(255),
    "Case",
    "case",
    " ",
    "-rf",
    "<12>",
    `${long}/${"f".repeat(54)}`,
  ]
  const tree = await treeOf([
    ...names.map((name) => ({ name, content: name.slice(0, 3) })),
    { name: "g".repeat(200), isGnuLong: true, content: "gnu" },
    { name: "target", type: "2", linkname: "t".repeat(4000) },
  ])
  for (const name of names) expect(textOf(tree, name)).toBe(name.slice(0, 3))
  expect(textOf(tree, "g".repeat(200))).toBe("gnu")
  expect(textOf(tree, "target")).toBe("t".repeat(4000))
})

test("sparse files of GNU tar, sizes in base 256 and files of zeros are read as they are", async () => {
  const old = { at: 386, bytes: `${"0".repeat(8)}2000\0${"0".repeat(9)}10\0` }
  const map = "1\n1048576\n4\n"
  const tree = await treeOf([
    // The old form: a map in the header says that 8 bytes come at 1024, of 4096 in all.
    {
      name: "old",
      type: "S",
      content: "12345678",
      patch: [old, { at: 483, bytes: "00000010000\0" }, { at: 257, bytes: "ustar  \0" }],
    },
    {
      name: "GNUSparseFile.0/new",
      content: `${map}${"\0".repeat(512 - map.length)}tail`,
      pax: {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "new",
        "GNU.sparse.realsize": `${1024 * 1024 + 4}`,
      },
    },
    { name: "base256", content: "content", isBase256: true },
    { name: "zeros", content: Buffer.concat([Buffer.alloc(20_000), Buffer.from("end")]) },
  ])
  expect(tree.get("old")?.content).toEqual(
    Buffer.concat([Buffer.alloc(1024), Buffer.from("12345678"), Buffer.alloc(3064)]),
  )
  expect(tree.get("new")?.content).toEqual(Buffer.concat([Buffer.alloc(1024 * 1024), Buffer.from("tail")]))
  expect(textOf(tree, "base256")).toBe("content")
  expect(tree.get("zeros")?.content).toEqual(Buffer.concat([Buffer.alloc(20_000), Buffer.from("end")]))
})

test("gzip, zstd and plain layers of one image give one disk, byte for byte, also as another user", async () => {
  const layer = [
    folder("dir", { mtime: 5 }),
    { name: "dir/file", content: "x".repeat(100_000), uid: 3 },
    { name: "null", type: "3", major: 1, minor: 3 },
  ]
  const layout = await mkdtemp(join(root, "layout-"))
  const manifestDigest = await writeImage(layout, [tarOf(layer)], { compression: "zstd" })
  const made = new Set<string>()
  for (const id of [uid, uid + 1]) {
    const { disk } = await unpackImage({
      layout,
      manifestDigest,
      directory: await mkdtemp(join(root, "work-")),
      uid: id,
    })
    made.add(
      createHash("sha256")
        .update(await diskDigest(disk))
        .digest("hex"),
    )
  }
  expect(made.size).toBe(1)
  const gzip = await unpack([layer], { compression: "gzip" })
  expect(readExt4Tree(gzip.disk).get("dir/file")?.size).toBe(100_000)
})

test("only the disk is left, with the size of its contents, and progress is told", async () => {
  const layout = await mkdtemp(join(root, "layout-"))
  const directory = await mkdtemp(join(root, "work-"))
  await writeFile(join(directory, "left-by-a-killed-process"), "")
  const big = Buffer.alloc(3 * 1024 * 1024, "random enough")
  const manifestDigest = await writeImage(layout, [
    tarOf([
      { name: "big", content: big },
      { name: "socket", type: "s" },
    ]),
  ])
  const told: number[] = []
  const image = await unpackImage({
    layout,
    manifestDigest,
    directory,
    uid,
    onProgress: ({ bytes, total }) => told.push(bytes / total),
  })
  expect(await readdir(directory)).toEqual(["disk.raw"])
  expect({ ...image, config: undefined }).toEqual({
    disk: join(directory, "disk.raw"),
    sizeMib: 8192,
    bytes: big.length,
    entries: 2,
    leftOut: 1,
    config: undefined,
  })
  expect((await stat(image.disk)).size).toBe(8192 * 1024 * 1024)
  expect(told.length).toBeGreaterThan(2)
  expect(told.at(-1)).toBe(1)
})

test("a large directory has an index, and every name is found", async () => {
  const names = Array.from({ length: 100 }, (_, index) => `large/${index}-${"n".repeat(200)}`)
  const tree = await treeOf([
    folder("large"),
    ...names.map((name) => ({ name })),
    folder("small"),
    { name: "small/f" },
  ])
  expect(tree.get("large")?.isIndexed).toBe(true)
  expect(tree.get("small")?.isIndexed).toBe(false)
  expect(names.filter((name) => !tree.has(name))).toEqual([])
})

test.skipIf(process.getuid?.() !== 0)("a caller who is not root gets the bytes that root gets", async () => {
  const layout = await mkdtemp(join(root, "layout-"))
  const layer = tarOf([
    folder("dir", { uid: 4, mode: 0o700 }),
    {
      name: "dir/file",
      uid: 1000,
      gid: 70_000,
      mode: 0o4711,
      content: "x",
      pax: { "SCHILY.xattr.user.a": "b" },
    },
    { name: "dir/again", type: "1", linkname: "dir/file" },
    { name: "null", type: "3", major: 1, minor: 3, mode: 0o666 },
  ])
  const manifestDigest = await writeImage(layout, [layer])
  const { disk } = await unpackImage({
    layout,
    manifestDigest,
    directory: await mkdtemp(join(root, "work-")),
    uid,
  })
  const { layers } = await readLayeredImage(layout, manifestDigest)
  const directory = await mkdtemp(join(root, "rootless-"))
  const limits = { entries: 100, depth: 9, ratio: 9, seconds: 60, free_bytes: 0, memory_bytes: 2 ** 32 }
  const request = {
    parent: process.pid,
    layout,
    layers: layers.map(({ digest, size, diffId }) => ({
      digest: hexOf(digest),
      size,
      diff_id: hexOf(diffId),
    })),
    id: hexOf(manifestDigest).slice(0, 32),
    limits: { ...limits, compressed_bytes: 2 ** 30, unpacked_bytes: 2 ** 30 },
  }
  await writeFile(join(directory, "request.json"), JSON.stringify(request))
  const program = join(directory, "unpack")
  await copyFile(resolve(import.meta.dir, "../../dist/unpack"), program)
  await chmod(program, 0o755)
  await chmod(root, 0o755)
  await runProgram(["chown", "-R", "12345:12345", directory, layout], { deadlineMs: 5000 })
  await runProgram(
    ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", program, "run", directory],
    {
      deadlineMs: 60_000,
    },
  )
  expect(await diskDigest(join(directory, "disk.raw"))).toBe(await diskDigest(disk))
})
