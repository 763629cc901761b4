/** The unpacker's process has no rights, and nothing of it is left, whoever ends when. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { until } from "../../test/cli/program.ts"
import { writeImage } from "../../test/support/oci-layout.ts"
import { endlessArchive, tarOf } from "../../test/support/tar-bytes.ts"
import { readArchive } from "./archive.ts"
import { unpackImage } from "./unpack.ts"

const uid = 799_000
const isRoot = process.getuid?.() === 0
let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "bhatti-unpacker-"))
})
afterAll(() => rm(root, { recursive: true, force: true }))

/** Processes whose command line has that text. */
function processesWith(text: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && commandOf(pid).includes(text))
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ")
  } catch {
    return "" // It has ended.
  }
}

function roomOf(directory: string): number | undefined {
  return processesWith(directory).find((pid) => /^\S+ room(-rootless)? /.test(commandOf(pid)))
}

/** The work below an unpacker that was started for the directory. */
function workOf(directory: string): number | undefined {
  const room = roomOf(directory)
  if (room === undefined) return undefined
  return processesWith("/tools/unpack work").find((pid) => fieldOf(pid, "PPid") === `${room}`)
}

function fieldOf(pid: number, name: string): string | undefined {
  return new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
}

async function retryIn(directory: string): Promise<void> {
  const layout = await mkdtemp(join(root, "layout-"))
  const manifestDigest = await writeImage(layout, [tarOf([{ name: "f", content: "f" }])])
  expect((await unpackImage({ layout, manifestDigest, directory, uid })).entries).toBe(2)
  expect(await readdir(directory)).toEqual(["disk.raw"])
}

test.skipIf(!isRoot)(
  "the work sees only itself, has no capability, and is a user without rights",
  async () => {
    const directory = await mkdtemp(join(root, "work-"))
    const stop = new AbortController()
    const reading = readArchive({ archive: endlessArchive(), directory, uid, signal: stop.signal })
    try {
      await until("it works", () => workOf(directory) !== undefined)
      const pid = workOf(directory) as number
      await until("it writes", () => readdirSync(`/proc/${pid}/root/work`).length === 3)
      for (const ids of ["Uid", "Gid"])
        expect(fieldOf(pid, ids)?.split("\t")).toEqual(Array(4).fill(`${uid}`))
      expect(fieldOf(pid, "Groups")?.trim()).toBe("")
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) expect(fieldOf(pid, set)).toMatch(/^0+$/)
      expect(fieldOf(pid, "NoNewPrivs")).toBe("1")
      expect(fieldOf(pid, "Seccomp")).toBe("2")
      for (const kind of ["user", "mnt", "pid", "net", "ipc", "uts"])
        expect(readlinkSync(`/proc/${pid}/ns/${kind}`)).not.toBe(readlinkSync(`/proc/self/ns/${kind}`))
      expect(readFileSync(`/proc/${pid}/uid_map`, "utf8").trim().split(/\s+/)).toEqual([
        "1000",
        `${uid}`,
        "1",
      ])
      expect(readFileSync(`/proc/${pid}/net/dev`, "utf8").trim().split("\n").slice(2)).toHaveLength(1)
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").trim().split("\n")
      expect(mounts.map((line) => line.split(" ")[4]).sort()).toEqual(["/", "/proc", "/work"])
      for (const line of mounts) {
        const [, , , , path, options = ""] = line.split(" ")
        expect(options).toContain("nosuid,nodev")
        expect(options.startsWith("ro")).toBe(path === "/")
      }
      expect(readdirSync(`/proc/${pid}/root/work`).sort()).toEqual(["content", "notes", "tree"])
      const limit = (name: string) =>
        new RegExp(`^${name} +(\\S+)`, "m").exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.[1]
      expect(limit("Max address space")).toBe(`${4 * 1024 ** 3}`)
      expect(limit("Max cpu time")).toBe("1800")
      expect(limit("Max core file size")).toBe("0")
      expect(limit("Max processes")).toBe("512")
    } finally {
      stop.abort()
      await reading.catch(() => undefined)
    }
  },
)

test("a cancelled work leaves no process and no file", async () => {
  const directory = await mkdtemp(join(root, "work-"))
  const stop = new AbortController()
  const reading = readArchive({
    archive: endlessArchive(),
    directory,
    uid,
    signal: stop.signal,
    onProgress: () => stop.abort(new Error("cancelled")),
  })
  expect(reading).rejects.toThrow("cancelled")
  await reading.catch(() => undefined)
  expect(processesWith(directory)).toEqual([])
  expect(await readdir(directory)).toEqual([])
})

test("a work that takes too long is ended", async () => {
  const directory = await mkdtemp(join(root, "work-"))
  const reading = readArchive({ archive: endlessArchive(), directory, uid, limits: { timeoutMs: 300 } })
  expect(reading).rejects.toMatchObject({ reason: "too_slow" })
  await reading.catch(() => undefined)
  expect(await readdir(directory)).toEqual([])
})

test.each(["caller", "run", "room", "work"] as const)(
  "kill -9 of the %s in the middle: all its processes end, and a retry in the same directory succeeds",
  async (victim) => {
    const directory = await mkdtemp(join(root, "work-"))
    await using undo = new AsyncDisposableStack()
    const caller = Bun.spawn(
      [process.execPath, resolve(import.meta.dir, "../../test/support/unpack-slowly.ts"), directory],
      { stdout: "ignore", stderr: "pipe" },
    )
    undo.defer(() => caller.kill("SIGKILL"))
    await until("it works", () => workOf(directory) !== undefined)
    const pid = {
      caller: caller.pid,
      run: processesWith(`unpack run ${directory}`)[0],
      room: roomOf(directory),
      work: workOf(directory),
    }[victim]
    process.kill(pid as number, "SIGKILL")
    expect(await caller.exited).not.toBe(0)
    await until("all have ended", () => processesWith(directory).length === 0)
    if (victim !== "caller") expect(await readdir(directory)).toEqual([])
    await retryIn(directory)
  },
)
