/** Backups on real file systems: whole or not there, wherever their directory and the data directory lie. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { dirname, join } from "node:path"
import { Backups, restoreBackup } from "./backups.ts"

const isRoot = process.getuid?.() === 0
let outside = ""
let mounted: string[] = []
const path = (name: string) => join(outside, name)
const backups = () => new Backups({ dataDir: path("data"), draftOf: path })

function write(name: string, text: string | Uint8Array = "x"): void {
  mkdirSync(dirname(path(name)), { recursive: true })
  writeFileSync(path(name), text)
}

/** An own file system there. */
function mount(name: string, mib: number): void {
  mkdirSync(path(name), { recursive: true })
  const { exitCode, stderr } = Bun.spawnSync([
    "mount",
    "-t",
    "tmpfs",
    "-o",
    `size=${mib}m`,
    "tmpfs",
    path(name),
  ])
  if (exitCode !== 0) throw new Error(`mount: ${stderr}`)
  mounted.push(path(name))
}

const restore = (name: string, report: (line: string) => void = () => expect.unreachable()) =>
  restoreBackup({ from: path("backup"), dataDir: path(name), report })

/** Makes one of a directory with a file of every kind. */
async function backUp(without: string[] = []): Promise<void> {
  const draft = await backups().begin(path("backup"))
  await draft.add({ kind: "sandbox", id: "sb_1", draft: "draft" })
  await draft.add({ kind: "common", without })
  await draft.addDatabase(async (path) => {
    writeFileSync(path, "database")
    return { mark: "mark", gone: [] }
  })
  await draft.finish({ version: "1" })
}

beforeEach(() => {
  outside = mkdtempSync("/tmp/bhatti-backups-")
  for (const name of [
    "data/age.key",
    "data/kernels/k/vmlinux",
    "data/kernels/current.json",
    "data/kits/k.raw",
    "data/images/minimal/h.raw",
    "data/templates/t/memory",
    "data/qemu/q/build.json",
    "draft/disk.qcow2",
  ])
    write(name, name)
})

afterEach(() => {
  for (const one of mounted) Bun.spawnSync(["umount", "--lazy", one])
  mounted = []
  rmSync(outside, { recursive: true, force: true })
})

const restored = [
  "age.key",
  "bhatti.db",
  "images/minimal/h.raw",
  "installation.json",
  "kernels/current.json",
  "kernels/k/vmlinux",
  "kits/k.raw",
  "qemu/q/build.json",
  "sandboxes/sb_1/disk.qcow2",
  "templates/t/memory",
]
const filesIn = (name: string) =>
  (readdirSync(path(name), { recursive: true, withFileTypes: true }) as import("node:fs").Dirent[])
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path(name).length + 1))
    .sort()

test("what is in the making is left out of a backup", async () => {
  write("data/templates/tmp-1/state")
  write("data/images/minimal/.making-h.raw-1/text")
  write("data/kernels/.making-k-2/vmlinux")
  write("data/qemu/part-1/build.json")
  await backUp()
  expect(filesIn("backup")).toEqual([...restored, "backup.json"].sort())
  expect(readFileSync(path("backup/templates/t/memory"), "utf8")).toBe("data/templates/t/memory")
})

test("templates that are named are left out of a backup, whole", async () => {
  write("data/templates/own/memory")
  write("data/templates/own-2/memory")
  await backUp(["own"])
  expect(readdirSync(path("backup/templates")).sort()).toEqual(["own-2", "t"])
})

test("a backup into a directory that has only a lost+found is made, and restored without it", async () => {
  mkdirSync(path("backup/lost+found"), { recursive: true })
  await backUp()
  write("backup/lost+found/#12")
  await restore("new")
  expect(filesIn("new")).toEqual(restored)
})

test.skipIf(!isRoot)(
  "a backup that does not fit says whose disk is full, and leaves nothing there",
  async () => {
    mount("small", 1)
    write("draft/disk.qcow2", crypto.getRandomValues(new Uint8Array(65_536)).toBase64().repeat(30))
    for (const directory of ["small", "small/within"]) {
      const draft = await backups().begin(path(directory))
      expect(draft.isBeside).toBe(false)
      await expect(draft.add({ kind: "sandbox", id: "sb_1", draft: "draft" })).rejects.toMatchObject({
        message: `the backup does not fit: the disk of ${path(directory)} is full`,
        hint: expect.stringContaining("nothing was left there"),
      })
      expect([draft.isFull, existsSync(path(`${directory}/sandboxes/sb_1`))]).toEqual([true, false])
      await draft[Symbol.asyncDispose]()
      expect(readdirSync(path("small"))).toEqual([])
    }
  },
)

test.skipIf(!isRoot)(
  "a backup is restored on a data directory that is a mount point with a lost+found",
  async () => {
    await backUp()
    mount("mounted", 4)
    mkdirSync(path("mounted/lost+found"))
    await restore("mounted")
    expect(filesIn("mounted")).toEqual(restored)
    expect(readdirSync(path("mounted"))).toContain("lost+found")
  },
)

test("a backup is restored on a data directory that is a symlink, which stays one", async () => {
  await backUp()
  mkdirSync(path("elsewhere"))
  symlinkSync(path("elsewhere"), path("link"))
  await restore("link")
  expect(filesIn("elsewhere")).toEqual(restored)
  expect(readFileSync(path("link/bhatti.db"), "utf8")).toBe("database")
})

test("a backup that is damaged leaves a data directory that was there as it was", async () => {
  await backUp()
  write("backup/age.key", "y")
  mkdirSync(path("there/lost+found"), { recursive: true })
  for (const name of ["there", "new"])
    await expect(restore(name)).rejects.toMatchObject({
      message: "the backup is damaged: age.key was changed",
    })
  expect(readdirSync(path("there"))).toEqual(["lost+found"])
  expect(existsSync(path("new"))).toBe(false)
})

test("remains of a restore that was killed are removed by the next one, which says so", async () => {
  await backUp()
  const killedAt = {
    "while it copied": () => write("there/.restoring-1/kernels/k/vmlinux", "a part"),
    "while it renamed": () => {
      for (const name of ["installation.json", "kernels/k/vmlinux"]) write(`there/${name}`)
      write("there/.restoring-1/bhatti.db")
    },
  }
  for (const [when, leave] of Object.entries(killedAt)) {
    leave()
    const said: string[] = []
    await restore("there", (line) => said.push(line))
    expect([when, filesIn("there"), said]).toEqual([
      when,
      restored,
      ["removed what a restore that was killed had left there"],
    ])
    rmSync(path("there"), { recursive: true })
  }
})

test("a restore removes nothing but its own remains", async () => {
  await backUp()
  const refused = { message: `${path("there")} is not empty` }
  // Another file; a restore that was killed when all was in its place; one that goes on.
  for (const name of ["there/notes", "there/bhatti.db"]) {
    write("there/.restoring-1/age.key")
    write(name)
    await expect(restore("there")).rejects.toMatchObject(refused)
    expect(filesIn("there")).toEqual([".restoring-1/age.key", name.slice("there/".length)])
    rmSync(path("there"), { recursive: true })
  }
  const both = await Promise.allSettled([restore("there"), restore("there")])
  expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"])
  expect(filesIn("there")).toEqual(restored)
})
