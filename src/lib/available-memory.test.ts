/** Available memory, read from files as kernels and containers have them. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { availableMemoryMib } from "./available-memory.ts"

const mebibyte = 1024 * 1024
let root: string
beforeEach(() => {
  root = mkdtempSync("/tmp/bhatti-memory-")
  write("proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    8192000 kB\nSwapTotal: 0 kB\n")
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), text)
}

function limit(path: string, numbers: { limitMib: number; usedMib: number; filesMib?: number }): void {
  const { limitMib, usedMib, filesMib = 0 } = numbers
  write(`${path}/memory.max`, `${limitMib * mebibyte}\n`)
  write(`${path}/memory.current`, `${usedMib * mebibyte}\n`)
  write(
    `${path}/memory.stat`,
    `anon 5\nfile 9\ninactive_anon 5\nactive_file ${filesMib * mebibyte}\ninactive_file 0\nshmem 0\n`,
  )
}

const own = () => availableMemoryMib({ groups: "own", root })
const outermost = () => availableMemoryMib({ groups: "outermost", root })

test("without groups, and with groups without limits, it is what the kernel says", () => {
  expect(own()).toBe(8000)
  write("proc/self/cgroup", "0::/system.slice/bhatti.service\n")
  write("sys/fs/cgroup/system.slice/bhatti.service/memory.max", "max\n")
  write("sys/fs/cgroup/system.slice/bhatti.service/memory.current", "1000\n")
  expect([own(), outermost()]).toEqual([8000, 8000])
})

test("a group's limit counts, with the pages of files that it can give up, on each level", () => {
  write("proc/self/cgroup", "0::/system.slice/bhatti.service\n")
  limit("sys/fs/cgroup/system.slice/bhatti.service", { limitMib: 2000, usedMib: 1500, filesMib: 300 })
  expect([own(), outermost()]).toEqual([800, 8000])
  limit("sys/fs/cgroup/system.slice", { limitMib: 3000, usedMib: 2900 })
  expect([own(), outermost()]).toEqual([100, 8000])
  limit("sys/fs/cgroup/system.slice", { limitMib: 3000, usedMib: 3001 })
  expect(own()).toBe(0)
})

test("a container's limit counts for everything in it, under whatever name it sees itself", () => {
  limit("sys/fs/cgroup", { limitMib: 1000, usedMib: 400 })
  for (const name of ["/", "/docker/0123", "/../../other"]) {
    write("proc/self/cgroup", `0::${name}\n`)
    expect([own(), outermost()]).toEqual([600, 600])
  }
})

test("version 1 has other names, and a number for no limit", () => {
  write("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n")
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
  write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", `${700 * mebibyte}\n`)
  write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", `${600 * mebibyte}\n`)
  write(
    "sys/fs/cgroup/memory/a/memory.stat",
    `active_file 1\ntotal_active_file ${20 * mebibyte}\ntotal_inactive_file ${30 * mebibyte}\n`,
  )
  expect(own()).toBe(150)
})

test("of this very host it is something, and no more than there is", () => {
  const mib = availableMemoryMib({ groups: "own" })
  expect(mib).toBeGreaterThan(0)
  expect(mib).toBeLessThanOrEqual(availableMemoryMib({ groups: "outermost" }) + 512)
})
