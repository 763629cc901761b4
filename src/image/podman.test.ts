/** The same layers, pulled by podman into a storage of its own, as root: both trees are equal, entry by entry. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { stat } from "node:fs/promises"
import { join } from "node:path"
import { manifestType, writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { directoryLines, diskLines } from "../../test/support/tree-lines.ts"
import { unpackImage } from "./unpack.ts"

const canRun = process.getuid?.() === 0 && Bun.which("podman") !== null
let root: string
beforeAll(() => {
  // podman makes a name of the layout's path, and names have no upper-case letters.
  root = `/tmp/bhatti-podman-${process.pid}`
  mkdirSync(root)
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
const accessList =
  "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
  "\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  ...{ name, type: "5", mode: 0o755, mtime: 1000 },
  ...more,
})
const file = (name: string, content: string, more: Partial<TarEntry> = {}): TarEntry => ({
  ...{ name, content, mode: 0o755, mtime: 1000 },
  ...more,
})

const layersCount = process.env["BHATTI_TEST_LONG"] === undefined ? 8 : 60
const kinds: Record<string, TarEntry[][]> = {
  "without anything but a program": [[folder("./"), file("hello", "elf")]],
  "with file capabilities, access lists and attributes": [
    [folder("./"), file("ping", "elf", { pax: { "SCHILY.xattr.security.capability": capability } })],
    [
      file("listed", "x", { mode: 0o754, pax: { "SCHILY.xattr.system.posix_acl_access": accessList } }),
      file("noted", "x", { pax: { "SCHILY.xattr.user.a": "b" } }),
      folder("shared", { pax: { "SCHILY.xattr.system.posix_acl_default": accessList } }),
    ],
  ],
  "with removed files, hard links, devices and odd names": [
    [
      ...[folder("./"), folder("opt"), folder("opt/app"), file("opt/app/a", "a"), file("opt/gone", "x")],
      file("opt/link", "", { type: "1", linkname: "opt/app/a" }),
    ],
    [
      ...[folder("opt"), folder("opt/app", { uid: 1000, mtime: 2000 }), { name: "opt/app/.wh..wh..opq" }],
      ...[file("opt/app/b", "b", { uid: 1000, mode: 0o4711 }), { name: "opt/.wh.gone" }],
      { name: "null", type: "3", major: 1, minor: 3, mode: 0o666, mtime: 7 },
      { name: "pipe", type: "6", mode: 0o600, mtime: 7 },
      file("n\xffame", "odd", { uid: 70_000, gid: 70_000 }),
    ],
  ],
  // podman copies the whole tree for each layer.
  [`of ${layersCount} layers`]: Array.from({ length: layersCount }, (_, at) => [
    ...(at === 0 ? [folder("./")] : []),
    ...[file(`l${at}`, `${at}`), file("top", `${at}`, { mtime: at })],
  ]),
}

for (const [name, layers] of Object.entries(kinds)) {
  test.skipIf(!canRun)(
    `an image ${name} has the tree that podman makes`,
    async () => {
      const layout = join(root, `layout-${Object.keys(kinds).indexOf(name)}`)
      const digest = await writeImage(layout, layers.map(tarOf), { compression: "gzip" })
      const { size } = await stat(join(layout, "blobs", "sha256", digest.slice("sha256:".length)))
      const annotations = { "org.opencontainers.image.ref.name": "x" }
      const manifests = [{ mediaType: manifestType, digest, size, annotations }]
      writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }))
      writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}')
      const storage = join(layout, "storage")
      const place = [`--root=${storage}/root`, `--runroot=${storage}/run`]
      const podman = (...args: string[]) => {
        const flags = [...place, "--storage-driver=vfs", "--events-backend=none"]
        const { exitCode, stdout, stderr } = Bun.spawnSync(["podman", ...flags, ...args])
        if (exitCode !== 0) throw new Error(stderr.toString())
        return stdout.toString().trim()
      }
      const id = podman("pull", "--quiet", `oci:${layout}:x`)
      const theirs = await directoryLines(podman("image", "mount", id))
      podman("image", "unmount", "--all")
      const directory = join(layout, "work")
      const { disk } = await unpackImage({ layout, manifestDigest: digest, directory, uid: 799_000 })
      // podman touches the top directory of each image that it makes.
      const comparable = (lines: string[]) =>
        lines.map((line) => (line.startsWith(" ") ? line.replace(/\d+ *$/, "") : line))
      expect(comparable(diskLines(disk))).toEqual(comparable(theirs))
    },
    60_000,
  )
}
