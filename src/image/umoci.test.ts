/** The same layers, unpacked by umoci, an implementation of others, as root: both trees are equal, entry by entry. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { lstat, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { manifestType, writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { directoryLines, diskLines } from "../../test/support/tree-lines.ts"
import { runProgram } from "../lib/program.ts"
import { unpackImage } from "./unpack.ts"

let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "bhatti-umoci-"))
})
afterAll(() => rm(root, { recursive: true, force: true }))

const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  type: "5",
  mode: 0o755,
  mtime: 1000,
  ...more,
})
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

const system: TarEntry[][] = [
  [
    folder("./"),
    folder("usr"),
    folder("usr/bin"),
    { name: "bin", type: "2", linkname: "usr/bin", mode: 0o777, mtime: 5 },
    { name: "usr/bin/su", content: "elf".repeat(2000), mode: 0o4755, mtime: 1_600_000_000 },
    {
      name: "usr/bin/ping",
      content: "elf",
      mode: 0o755,
      pax: { "SCHILY.xattr.security.capability": capability },
    },
    { name: "usr/bin/zcat", type: "1", linkname: "usr/bin/su" },
    folder("dev"),
    { name: "dev/null", type: "3", major: 1, minor: 3, mode: 0o666, mtime: 7 },
    { name: "dev/sda", type: "4", major: 8, minor: 0, mode: 0o660, gid: 6, mtime: 7 },
    { name: "dev/initctl", type: "6", mode: 0o600, mtime: 8 },
    folder("etc"),
    { name: "etc/shadow", content: "root", mode: 0o640, gid: 42, mtime: 9 },
    folder("var"),
    folder("var/cache"),
    folder("var/cache/apt", { uid: 100, gid: 65534, mode: 0o700 }),
    { name: "var/cache/apt/old", content: "old", mtime: 10 },
    folder("tmp", { mode: 0o1777 }),
    folder("opt"),
    folder("opt/app"),
    { name: "opt/app/a", content: "a", mtime: 11 },
    { name: "opt/file", content: "f", mtime: 11 },
  ],
  [
    folder("var/cache"),
    { name: "var/cache/.wh.apt" },
    folder("opt"),
    folder("opt/app", { uid: 1000, gid: 1000, mtime: 2000 }),
    { name: "opt/app/.wh..wh..opq" },
    {
      name: "opt/app/b",
      content: "bb",
      uid: 1000,
      gid: 1000,
      mtime: 2000,
      pax: { "SCHILY.xattr.user.note": "x" },
    },
    { name: "opt/app/c", type: "1", linkname: "opt/app/b" },
    { name: "bin/tool", content: "through a link", mode: 0o755, mtime: 2001 },
    folder("opt/file", { mtime: 2002 }),
  ],
  [
    folder("etc"),
    { name: "etc/shadow", type: "2", linkname: "/run/shadow", mode: 0o777, mtime: 3000 },
    { name: "usr/bin/su", content: "new", mode: 0o755, mtime: 3001 },
    { name: "etc/n\xffame", content: "odd", mtime: 3002 },
  ],
]

const isRoot = process.getuid?.() === 0

test.skipIf(!isRoot)("a tree of three layers is the one that umoci makes", async () => {
  await compare(system.map(tarOf))
})

if (isRoot && process.env["BHATTI_TEST_LONG"] !== undefined) {
  test("a Debian system is the one that umoci makes", async () => {
    const file = join(root, "debian.tar")
    await runProgram(["mmdebstrap", "--variant=minbase", "bookworm", file], { deadlineMs: 900_000 })
    await compare([await Bun.file(file).bytes()])
  }, 1_200_000)
}

async function compare(layers: Uint8Array[]): Promise<void> {
  const layout = await mkdtemp(join(root, "layout-"))
  const digest = await writeImage(layout, layers, { compression: "gzip" })
  const path = join(layout, "blobs", "sha256", digest.slice("sha256:".length))
  const manifest = { mediaType: manifestType, digest, size: (await lstat(path)).size }
  const index = {
    schemaVersion: 2,
    manifests: [{ ...manifest, annotations: { "org.opencontainers.image.ref.name": "x" } }],
  }
  await Bun.write(join(layout, "index.json"), JSON.stringify(index))
  await Bun.write(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}')
  const bundle = join(layout, "bundle")
  await runProgram(["umoci", "unpack", "--image", `${layout}:x`, bundle], { deadlineMs: 300_000 })
  const directory = join(layout, "work")
  const { disk } = await unpackImage({ layout, manifestDigest: digest, directory, uid: 799_000 })
  expect(diskLines(disk)).toEqual(await directoryLines(join(bundle, "rootfs")))
}
