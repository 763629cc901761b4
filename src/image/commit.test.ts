/** Artifacts appear whole or not at all, also when builds race or fail. */
import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs"
import { mkdir, readFile, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { exists } from "../lib/missing-files.ts"
import { runProgram } from "../lib/program.ts"
import { commitDirectory, commitLink, commitText } from "./commit.ts"

const root = mkdtempSync(join(tmpdir(), "bhatti-publish-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

test("a directory appears whole, and the second build is not needed", async () => {
  const target = join(root, "whole", "kernel")
  let builds = 0
  const build = async (directory: string) => {
    builds += 1
    await writeFile(join(directory, "vmlinux"), "elf")
    expect(await exists(target)).toBe(false)
  }
  await commitDirectory(target, build)
  await commitDirectory(target, build)
  expect(builds).toBe(1)
  expect(await readFile(join(target, "vmlinux"), "utf8")).toBe("elf")
  expect(statSync(join(target, "vmlinux")).mode & 0o777).toBe(0o444)
  expect(readdirSync(join(root, "whole"))).toEqual(["kernel"])
})

test("a failed build leaves nothing", async () => {
  const target = join(root, "failed", "kernel")
  const build = commitDirectory(target, async (directory) => {
    await writeFile(join(directory, "half"), "ha")
    throw new Error("disk full")
  })
  expect(build).rejects.toThrow("disk full")
  await build.catch(() => undefined)
  expect(readdirSync(join(root, "failed"))).toEqual([])
})

test("of builds that race, one wins and all succeed", async () => {
  const target = join(root, "race", "kernel")
  const build = (content: string) =>
    commitDirectory(target, async (directory) => {
      await writeFile(join(directory, "vmlinux"), content)
    })
  await Promise.all(["a", "b", "c"].map(build))
  expect(["a", "b", "c"]).toContain(await readFile(join(target, "vmlinux"), "utf8"))
  expect(readdirSync(join(root, "race"))).toEqual(["kernel"])
})

test("what a killed build left is swept, what another one is making is not", async () => {
  const directory = join(root, "sweep")
  await mkdir(join(directory, ".making-old-1"), { recursive: true })
  await mkdir(join(directory, ".making-young-2"), { recursive: true })
  utimesSync(join(directory, ".making-old-1"), 0, 0)
  await commitDirectory(join(directory, "kernel"), async () => {})
  expect(readdirSync(directory).sort()).toEqual([".making-young-2", "kernel"])
})

test.skipIf(process.getuid?.() !== 0)(
  "a killed build's mounts are detached, and fail no later build",
  async () => {
    const directory = join(root, "mounts")
    const left = join(directory, ".making-old-1")
    const mounted = join(left, "scratch/tree/sys")
    await mkdir(mounted, { recursive: true })
    await runProgram(["mount", "-t", "sysfs", "-o", "ro", "sysfs", mounted], { deadlineMs: 10_000 })
    try {
      utimesSync(left, 0, 0)
      await commitDirectory(join(directory, "kernel"), async () => {})
      expect(readdirSync(directory)).toEqual(["kernel"])
    } finally {
      Bun.spawnSync(["umount", "--lazy", mounted], { stderr: "ignore" })
    }
  },
)

test("linking shares the file and never replaces one", async () => {
  const [source, target] = [join(root, "source"), join(root, "links", "target")]
  await writeFile(source, "image")
  await commitLink(source, target)
  await commitLink(source, target)
  expect((await stat(target)).ino).toBe((await stat(source)).ino)

  const other = join(root, "links", "other")
  await writeFile(other, "mine")
  await commitLink(source, other)
  expect(await readFile(other, "utf8")).toBe("mine")
})

test.skipIf(!isOtherFilesystem("/dev/shm", tmpdir()))("across filesystems the file is copied", async () => {
  const directory = mkdtempSync("/dev/shm/bhatti-publish-")
  try {
    const source = join(root, "far-source")
    await writeFile(source, "image")
    await commitLink(source, join(directory, "target"))
    expect(await readFile(join(directory, "target"), "utf8")).toBe("image")
    expect(readdirSync(directory)).toEqual(["target"])
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test("a text is replaced as a whole", async () => {
  const target = join(root, "current.json")
  await commitText(target, "one")
  await commitText(target, "two")
  expect(await readFile(target, "utf8")).toBe("two")
})

function isOtherFilesystem(one: string, other: string): boolean {
  return statSync(one, { throwIfNoEntry: false })?.dev !== statSync(other).dev
}
