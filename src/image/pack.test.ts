/** A disk becomes a layer and a disk again: what an image of a sandbox, and an exported image, keep of the tree. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type DiskEntry, readExt4Tree } from "../../test/support/ext4-tree.ts"
import { writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { readArchive } from "./archive.ts"
import { type DiskFile, packDisk } from "./pack.ts"
import { unpackImage } from "./unpack.ts"

const uid = 799_000
let root: string
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "bhatti-pack-"))
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

const place = (name: string) => mkdtempSync(join(root, `${name}-`))
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
const accessList =
  "\x02\x00\x00\x00" +
  "\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
  "\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  ...{ name, type: "5", mode: 0o755 },
  ...more,
})

async function diskOf(entries: TarEntry[]): Promise<string> {
  const layout = place("layout")
  const manifestDigest = await writeImage(layout, [tarOf(entries)])
  return (await unpackImage({ layout, manifestDigest, directory: place("work"), uid })).disk
}

async function pack(files: DiskFile[], { isOfSandbox = false } = {}) {
  return await packDisk({ files, diskMib: 65_536, isOfSandbox, directory: place("packed"), uid })
}

async function treeOf(layer: string): Promise<Map<string, DiskEntry>> {
  const read = await readArchive({
    ...{ archive: Bun.file(layer).stream(), isTree: true, directory: place("again"), uid },
  })
  if (read.kind !== "disk") throw new Error("the layer was taken for an image's archive")
  return readExt4Tree(read.image.disk)
}

/** Inodes have other numbers in another disk; that names share one must be the same. */
function comparable(tree: Map<string, DiskEntry>) {
  const first = new Map<number, string>()
  return Object.fromEntries(
    [...tree].sort().map(([name, { inode, content, isIndexed: _, size, kind, ...rest }]) => {
      if (!first.has(inode)) first.set(inode, name)
      const shown = kind === "directory" ? 0 : size
      const bytes = content && new Bun.CryptoHasher("sha256").update(content).digest("hex")
      return [name, { ...rest, kind, size: shown, bytes, sameAs: first.get(inode) }]
    }),
  )
}

const rich: TarEntry[] = [
  folder("./", { mode: 0o711, uid: 5, mtime: 99 }),
  { name: "setuid", mode: 0o6755, uid: 1000, gid: 70_000, mtime: 1_000_000_000, content: "x" },
  { name: "large-id", uid: 4_000_000_000, pax: { gid: "4294967294" } },
  { name: "precise", pax: { mtime: "4000000000.123456789" }, content: "y".repeat(5000) },
  { name: "before-1970", pax: { mtime: "-86400.5" } },
  { name: "null", type: "3", major: 1, minor: 3, mode: 0o666 },
  { name: "disk", type: "4", major: 8, minor: 16, mode: 0o660, gid: 6 },
  { name: "large-device", type: "3", major: 500, minor: 70_000 },
  { name: "pipe", type: "6", mode: 0o622 },
  { name: "link", type: "2", linkname: "../outside", uid: 7 },
  { name: "long-link", type: "2", linkname: "t".repeat(700) },
  { name: "holes", content: Buffer.concat([Buffer.alloc(1_000_000), Buffer.from("end")]) },
  { name: "empty-to-the-end", content: Buffer.alloc(300_001) },
  { name: 'odd \xff\n"name" <1>', content: "odd" },
  { name: "twice", content: "several names", pax: { "SCHILY.xattr.user.a": "b\0\xff\n" } },
  { name: "z-third", type: "1", linkname: "twice" },
  { name: "twice-linked", type: "2", linkname: "null" },
  { name: "second-link", type: "1", linkname: "twice-linked" },
  folder("many/", { pax: { "SCHILY.xattr.system.posix_acl_default": accessList } }),
  ...Array.from({ length: 700 }, (_, index) => ({
    name: `many/${"n".repeat(60)}${index}`,
    content: `${index}`,
  })),
  {
    name: "ping",
    mode: 0o755,
    content: "elf",
    pax: {
      "SCHILY.xattr.security.capability": capability,
      "SCHILY.xattr.system.posix_acl_access": accessList,
      "SCHILY.xattr.user.long": "v".repeat(3000),
    },
  },
  { name: "oci-layout", content: '{"imageLayoutVersion":"1.0.0"}' },
  { name: "manifest.json", content: '[{"Config":"x"}]' },
]

test("a disk that was packed and unpacked is equal, entry by entry", async () => {
  const disk = await diskOf(rich)
  const { file, leftOut, size, digest } = await pack([{ path: disk, format: "raw" }])
  expect(leftOut).toBe(0)
  expect(size).toBe(Bun.file(file).size)
  const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(file).bytes()).digest("hex")
  expect(digest).toBe(`sha256:${hash}`)
  expect(comparable(await treeOf(file))).toEqual(comparable(readExt4Tree(disk)))
}, 60_000)

test("a chain of overlays is read as QEMU reads it, whatever its headers say lies below", async () => {
  const disk = await diskOf(rich)
  const directory = place("chain")
  const [first, second] = [join(directory, "first.qcow2"), join(directory, "second.qcow2")]
  const run = (...command: string[]) => {
    const { exitCode, stderr } = Bun.spawnSync(command)
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`)
  }
  run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", first)
  run("qemu-img", "create", "-q", "-f", "qcow2", "-b", first, "-F", "qcow2", second, "20G")
  // Each layer gets a change of its own, by a program that writes the file system in it.
  const flat = join(directory, "flat.raw")
  const write = (overlay: string, name: string) => {
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, flat)
    writeFileSync(join(directory, "text"), name.repeat(10_000))
    run("debugfs", "-w", "-R", `write ${join(directory, "text")} ${name}`, flat)
    run(
      "qemu-img",
      "convert",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-B",
      overlay === first ? disk : first,
      ...["-F", overlay === first ? "raw" : "qcow2"],
      flat,
      `${overlay}.new`,
    )
    run("mv", `${overlay}.new`, overlay)
  }
  write(first, "in-first")
  write(second, "in-second")
  for (const overlay of [first, second])
    run("qemu-img", "rebase", "-u", "-b", "/etc/shadow", "-F", "raw", overlay)
  const { file } = await pack([
    { path: second, format: "qcow2" },
    { path: first, format: "qcow2" },
    { path: disk, format: "raw" },
  ])
  const tree = await treeOf(file)
  expect(tree.get("in-first")?.content?.toString()).toBe("in-first".repeat(10_000))
  expect(tree.get("in-second")?.content?.toString()).toBe("in-second".repeat(10_000))
  for (const added of ["in-first", "in-second"]) tree.delete(added)
  const { "": _top, ...before } = comparable(readExt4Tree(disk))
  const { "": _root, ...after } = comparable(tree)
  expect(after).toEqual(before)
}, 120_000)

test("an image of a sandbox has nothing of the sandbox's identity", async () => {
  const disk = await diskOf([
    folder("etc/"),
    folder("etc/ssh/"),
    folder("tmp/", { mode: 0o1777 }),
    folder("usr/local/sbin/"),
    { name: "etc/hostname", content: "dev\n" },
    { name: "etc/machine-id", content: `${"a".repeat(32)}\n` },
    { name: "etc/ssh/ssh_host_ed25519_key", content: "private" },
    { name: "etc/ssh/sshd_config", content: "kept" },
    { name: "tmp/left", content: "over" },
    { name: "tmp/.X11/", type: "5" },
    { name: "usr/local/sbin/reboot", type: "2", linkname: "/proc/1/exe" },
    { name: "usr/local/sbin/halt", type: "2", linkname: "/bin/own" },
  ])
  const tree = await treeOf((await pack([{ path: disk, format: "raw" }], { isOfSandbox: true })).file)
  expect([...tree.keys()].sort()).toEqual(
    ["", "etc", "etc/hostname", "etc/machine-id", "etc/ssh", "etc/ssh/sshd_config", "tmp", "usr"].concat([
      "usr/local",
      "usr/local/sbin",
      "usr/local/sbin/halt",
    ]),
  )
  expect(tree.get("etc/hostname")?.size).toBe(0)
  expect(tree.get("etc/machine-id")?.size).toBe(0)
  expect(tree.get("tmp")?.mode).toBe(0o1777)
}, 60_000)

test("a damaged overlay and a disk that is none are refused with a reason", async () => {
  const directory = place("damaged")
  const none = join(directory, "none.raw")
  writeFileSync(none, "")
  truncateSync(none, 10 * 1024 * 1024)
  const broken = join(directory, "broken.qcow2")
  writeFileSync(broken, Buffer.from("QFI\xfb and nothing more", "latin1"))
  await expect(pack([{ path: broken, format: "qcow2" }])).rejects.toMatchObject({ reason: "bad_disk" })
  await expect(pack([{ path: none, format: "raw" }])).rejects.toThrow(/e2fsck|read/)
}, 60_000)
