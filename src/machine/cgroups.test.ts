/** Which groups are made and with which limits, in a directory that looks like the kernel's file system. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Cgroups, diskOf } from "./cgroups.ts"

let mountPoint: string
beforeEach(() => {
  mountPoint = mkdtempSync("/tmp/bhatti-cgroups-")
})
afterEach(() => rmSync(mountPoint, { recursive: true, force: true }))

const shape = { cpus: 2, memoryMib: 512, accelerator: "tcg", network: "tap" } as const

/** The kernel fills a new group with files; here those that are read must be there before. */
function offer(controllers: string): string {
  writeFileSync(join(mountPoint, "cgroup.controllers"), `${controllers}\n`)
  const name = `bhatti-${new Bun.CryptoHasher("sha256").update("/data").digest("hex").slice(0, 8)}`
  const directory = join(mountPoint, name)
  mkdirSync(directory)
  writeFileSync(join(directory, "cgroup.controllers"), `${controllers}\n`)
  return directory
}

test("a machine's group holds it to its memory, its processors and a number of threads", () => {
  const directory = offer("cpuset cpu io memory pids")
  const path = Cgroups.open({ mountPoint, dataDir: "/data" }).make("sb_1", shape)
  expect(path).toBe(join(directory, "sb_1"))
  const read = (name: string) => readFileSync(join(directory, "sb_1", name), "utf8")
  expect(read("memory.max")).toBe(`${(2 * 512 + 256) * 1024 * 1024}`)
  expect(read("memory.oom.group")).toBe("1")
  expect(read("cpu.max")).toBe("225000 100000")
  expect(read("pids.max")).toBe("98")
  for (const delegated of [mountPoint, directory])
    expect(readFileSync(join(delegated, "cgroup.subtree_control"), "utf8")).toBe("+cpu +memory +pids +io")
})

test("a machine can be made to give way to the others", () => {
  const directory = offer("cpu memory pids")
  const cgroups = Cgroups.open({ mountPoint, dataDir: "/data" })
  cgroups.make("sb_1", shape)
  expect(readFileSync(join(directory, "sb_1", "cpu.weight.nice"), "utf8")).toBe("5")
  cgroups.setNiceness("sb_1", 9)
  expect(readFileSync(join(directory, "sb_1", "cpu.weight.nice"), "utf8")).toBe("9")
  cgroups.setNiceness("sb_of_an_earlier_daemon", 9)
})

test("where the host offers io, a machine's bandwidth of the disk is limited too, and elsewhere only that is not", () => {
  const disk = { device: "254:0", bytesPerSec: 1000 }
  const directory = offer("cpu io memory pids")
  Cgroups.open({ mountPoint, dataDir: "/data", disk }).make("sb_1", shape)
  expect(readFileSync(join(directory, "sb_1", "io.max"), "utf8")).toBe("254:0 rbps=1000 wbps=1000")

  Cgroups.open({ mountPoint, dataDir: "/data" }).make("sb_2", shape)
  expect(readdirSync(join(directory, "sb_2"))).not.toContain("io.max")

  rmSync(directory, { recursive: true })
  offer("cpu memory pids")
  Cgroups.open({ mountPoint, dataDir: "/data", disk }).make("sb_3", shape)
  expect(readdirSync(join(directory, "sb_3")).sort()).toEqual([
    "cpu.max",
    "cpu.weight.nice",
    "memory.max",
    "memory.oom.group",
    "pids.max",
  ])
})

test("a machine that the kernel killed for memory is told from one that ended otherwise", () => {
  const directory = offer("cpu io memory pids")
  const cgroups = Cgroups.open({ mountPoint, dataDir: "/data" })
  cgroups.make("sb_1", shape)
  const tell = (text: string) => writeFileSync(join(directory, "sb_1", "memory.events"), text)
  expect(cgroups.ranOutOfMemory("sb_1")).toBe(false)
  tell("low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\noom_group_kill 0\n")
  expect(cgroups.ranOutOfMemory("sb_1")).toBe(false)
  tell("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n")
  expect(cgroups.ranOutOfMemory("sb_1")).toBe(true)
  expect(cgroups.ranOutOfMemory("sb_unknown")).toBe(false)
})

test("the disk of a directory is a whole one, and memory has none", () => {
  const mounts = readFileSync("/proc/mounts", "utf8")
  const device = diskOf("/var")
  if (/^\/dev\/\S+ \/ /m.test(mounts)) {
    expect(device).toMatch(/^\d+:\d+$/)
    expect(existsSync(`/sys/dev/block/${device}/queue`)).toBe(true)
  }
  expect(diskOf("/proc")).toBeUndefined()
})

test("groups that no machine is in are removed when the next daemon starts", () => {
  const directory = offer("cpu memory pids")
  mkdirSync(join(directory, "sb_gone"))
  Cgroups.open({ mountPoint, dataDir: "/data" })
  expect(readdirSync(directory)).not.toContain("sb_gone")
})

test("without the controllers, or without the file system, there are no groups", () => {
  const directory = offer("hugetlb")
  expect(Cgroups.open({ mountPoint, dataDir: "/data" }).make("sb_1", shape)).toBeUndefined()
  expect(readdirSync(directory)).not.toContain("sb_1")
  const missing = Cgroups.open({ mountPoint: join(mountPoint, "missing"), dataDir: "/data" })
  expect(missing.make("sb_1", shape)).toBeUndefined()
  missing.remove("sb_1")
  missing.close()
})
