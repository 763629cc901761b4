/** Copies of large files, and the space that sandboxes take, on this host's real filesystem. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileChecksum } from "../lib/sparse-file.ts"
import { copyFileWithChecksum } from "./copy-file.ts"
import { Disks } from "./disks.ts"
import { Snapshots } from "./snapshot-directories.ts"

const { signal } = new AbortController()

let directory = ""
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bhatti-disk-"))
})
afterEach(() => rmSync(directory, { recursive: true }))

/** 200 MB with three islands of data. */
async function sparseFile(path: string): Promise<void> {
  const file = await open(path, "wx")
  await file.truncate(200 * 1024 * 1024)
  for (const offset of [0, 60_000_000, 150_000_001])
    await file.write(Buffer.alloc(70_000, 7), 0, 70_000, offset)
  await file.close()
}

test("a sparse file's copy is the same, as sparse, and has the same checksum", async () => {
  const [from, to] = [join(directory, "from"), join(directory, "to")]
  await sparseFile(from)
  const { checksum } = await copyFileWithChecksum(from, to)
  expect(statSync(to).size).toBe(200 * 1024 * 1024)
  expect(statSync(to).blocks * 512).toBeLessThan(32 * 1024 * 1024)
  expect(Bun.spawnSync(["cmp", from, to]).exitCode).toBe(0)
  expect(await fileChecksum(to)).toBe(checksum)
  expect(await fileChecksum(from)).toBe(checksum)
})

test("a checksum tells a changed byte, a moved one and another length", async () => {
  const path = join(directory, "file")
  await sparseFile(path)
  const before = await fileChecksum(path)
  const write = async (text: string, offset: number) => {
    const file = await open(path, "r+")
    await file.write(Buffer.from(text), 0, text.length, offset)
    await file.close()
  }
  await write("x", 100_000_000)
  const changed = await fileChecksum(path)
  expect(changed).not.toBe(before)
  await write("\0", 100_000_000)
  expect(await fileChecksum(path)).toBe(before)
  await write("x", 120_000_000)
  expect(await fileChecksum(path)).not.toBe(changed)
  await write("\0", 120_000_000)
  truncateSync(path, 200 * 1024 * 1024 + 1)
  expect(await fileChecksum(path)).not.toBe(before)
})

test("nobody's copy is overwritten, and a failed one leaves no shared blocks behind", async () => {
  const [from, to] = [join(directory, "from"), join(directory, "to")]
  writeFileSync(from, "new")
  writeFileSync(to, "old")
  await expect(copyFileWithChecksum(from, to)).rejects.toThrow()
  expect(readFileSync(to, "utf8")).toBe("old")
})

test("the space of a sandbox counts what is written, and one that is not there takes none", async () => {
  const disks = new Disks({ dataDir: directory })
  mkdirSync(disks.directoryOf("sb_1"), { recursive: true })
  await sparseFile(disks.overlayOf("sb_1"))
  expect(await disks.measureMib("sb_1", "all")).toBeWithin(1, 32)
  expect(await disks.measureMib("sb_2", "all")).toBe(0)
})

test("the memory that is saved of a stopped sandbox does not count in its owner's quota", async () => {
  const disks = new Disks({ dataDir: directory })
  mkdirSync(disks.directoryOf("sb_1"), { recursive: true })
  writeFileSync(disks.overlayOf("sb_1"), Buffer.alloc(3 * 1024 * 1024, "x"))
  for (const name of ["snapshot", "snapshot.part"]) {
    mkdirSync(join(disks.directoryOf("sb_1"), name))
    writeFileSync(join(disks.directoryOf("sb_1"), name, "memory"), Buffer.alloc(8 * 1024 * 1024, "x"))
  }
  expect(await disks.measureMib("sb_1", "counted")).toBeWithin(3, 5)
  expect(await disks.measureMib("sb_1", "all")).toBeGreaterThanOrEqual(19)
})

/** A stopped sandbox, as its machine and its disk leave it. */
function stoppedSandbox(disks: Disks, id: string): void {
  mkdirSync(join(disks.directoryOf(id), "snapshot"), { recursive: true })
  writeFileSync(disks.overlayOf(id), "disk ".repeat(10_000))
  for (const name of ["memory", "state", "manifest.json"]) {
    writeFileSync(join(disks.directoryOf(id), "snapshot", name), `${name} of ${id}`)
  }
}

async function publishedSnapshot(): Promise<{ snapshots: Snapshots; disks: Disks; path: string }> {
  const disks = new Disks({ dataDir: directory })
  const snapshots = new Snapshots({ dataDir: directory, disks })
  stoppedSandbox(disks, "source")
  await snapshots.begin("snap")
  await snapshots.capture({ id: "snap", sandboxId: "source", storedMemory: true, signal })
  expect(await snapshots.list()).toEqual([])
  await snapshots.commit("snap")
  expect(await snapshots.list()).toEqual(["snap"])
  return { snapshots, disks, path: join(directory, "snapshots", "snap") }
}

test("what is given to a sandbox is whole, and stays when the snapshot and the source are gone", async () => {
  const { snapshots, disks } = await publishedSnapshot()
  expect(await snapshots.place({ id: "snap", sandboxId: "copy", signal })).toEqual({ hasMemory: true })
  await snapshots.remove("snap")
  await disks.removeSandbox("source")
  expect(readFileSync(disks.overlayOf("copy"), "utf8")).toBe("disk ".repeat(10_000))
  expect(readFileSync(join(disks.directoryOf("copy"), "snapshot/memory"), "utf8")).toBe("memory of source")
})

test.each([
  ["a changed disk", "disk.qcow2", "x"],
  ["changed device state", "snapshot/state", "x"],
  ["memory of another length", "snapshot/memory", "longer than before"],
  ["missing memory", "snapshot/memory", undefined],
  ["no manifest", "manifest.json", undefined],
])("%s is noticed, and nothing is given out", async (_what, name, content) => {
  const { snapshots, disks, path } = await publishedSnapshot()
  const file = join(path, name)
  if (content === undefined) rmSync(file)
  else {
    const before = readFileSync(file)
    writeFileSync(
      file,
      content.length > 1 ? Buffer.from(content) : Buffer.concat([Buffer.from(content), before.subarray(1)]),
    )
  }
  await expect(snapshots.place({ id: "snap", sandboxId: "copy", signal })).rejects.toMatchObject({
    code: "unavailable",
    retryable: false,
  })
  await snapshots.list()
  expect(await disks.listSandboxes()).toEqual(["source"])
})

test("unfinished ones are none, and are removed at the next start", async () => {
  const { snapshots } = await publishedSnapshot()
  await snapshots.begin("half")
  await snapshots.capture({ id: "half", sandboxId: "source", storedMemory: true, signal })
  expect(await snapshots.list()).toEqual(["snap"])
  await expect(snapshots.place({ id: "half", sandboxId: "copy", signal })).rejects.toMatchObject({
    code: "unavailable",
  })
  await snapshots.removeUnfinished()
  expect(await snapshots.list()).toEqual(["snap"])
  expect(
    await Array.fromAsync(
      new Bun.Glob("tmp-*").scan({ cwd: join(directory, "snapshots"), onlyFiles: false }),
    ),
  ).toEqual([])
})
