/** Further disks of a machine: their ports, their files, and what a saved memory asks of them. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import {
  diskArguments,
  type MachineDisk,
  matchDisks,
  openDisk,
  type PluggedDisk,
  placeDisks,
  readPlugged,
  saveDisk,
  writePlugged,
} from "./plugged-disks.ts"
import { allowFileBytes } from "./process.ts"

let directory = ""
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-disks-")
})
afterEach(() => rmSync(directory, { recursive: true }))

function disk(id: string, isReadOnly = false): MachineDisk {
  const path = join(directory, id)
  writeFileSync(path, "")
  truncateSync(path, 4096)
  return { id, path, isReadOnly }
}

const first = (disks: PluggedDisk[]): PluggedDisk => {
  if (!disks[0]) throw new Error("there is none")
  return disks[0]
}

test("each disk gets the lowest free port", () => {
  const [a, b, c] = placeDisks([disk("a"), disk("b"), disk("c")])
  expect([a?.port, b?.port, c?.port]).toEqual([0, 1, 2])
  expect(
    placeDisks(
      [disk("d"), disk("e")],
      [a, c].flatMap((one) => one ?? []),
    ).map(({ port }) => port),
  ).toEqual([1, 3])
})

test.each(["", "a".repeat(21), "a,b", "a b", "../a", "bhatti-kit", "ä"])("the id %j is refused", (id) => {
  expect(() => placeDisks([{ id, path: "/x", isReadOnly: true }])).toThrow("a disk's id")
})

test("QEMU gets the id as a serial number and no other word of a caller's, and no path", () => {
  const disks = placeDisks([disk("vol_1"), disk("vol_2", true)])
  const words = diskArguments(disks).join(" ")
  expect(words).not.toContain(directory)
  expect(words.match(/vol_\d/g)).toEqual(["vol_1", "vol_2"])
  const nodes = diskArguments(disks).filter((word) => word.startsWith('{"driver":"file"'))
  const access = nodes.map((node) => JSON.parse(node) as Record<string, unknown>)
  expect(access.map((node) => node["read-only"])).toEqual([false, true])
  expect(access.map((node) => node["filename"])).toEqual(["/dev/fdset/16", "/dev/fdset/17"])
})

test("a link, a directory, an empty file and a part of a sector are no disks, and nothing stays open", () => {
  const good = disk("good")
  symlinkSync(good.path, join(directory, "link"))
  mkdirSync(join(directory, "folder"))
  writeFileSync(join(directory, "empty"), "")
  writeFileSync(join(directory, "part"), "x")
  const before = readdirSync("/proc/self/fd").length
  for (const id of ["link", "folder", "empty", "part", "missing"])
    expect(() => openDisk({ id, path: join(directory, id), isReadOnly: true })).toThrow()
  expect(readdirSync("/proc/self/fd").length).toBe(before)
})

test("a saved memory takes back the same disks at the same ports, unchanged, and no others", async () => {
  const [a, b] = [disk("a"), disk("b", true)]
  const saved = await Promise.all(placeDisks([a, b]).reverse().map(saveDisk))
  expect(await matchDisks(saved, [a, b])).toEqual({
    disks: [expect.objectContaining({ ...b, port: 1 }), { ...a, port: 0 }],
  })
  const reasonOf = async (given: MachineDisk[]) => {
    const matched = await matchDisks(saved, given)
    return "reason" in matched ? matched.reason : undefined
  }
  expect(await reasonOf([a])).toBe("its memory was saved with the disk b, which it has no more")
  expect(await reasonOf([a, { ...b, isReadOnly: false }])).toContain("the disk b")
  expect(await reasonOf([a, b, disk("c")])).toBe("it got the disk c after its memory was saved")
  utimesSync(a.path, 1, 1)
  expect(await reasonOf([a, b])).toBe("its disk a has changed since its memory was saved")
  rmSync(a.path)
  expect(await reasonOf([a, b])).toBe("the file of its disk a is missing")
})

test("the list beside the machine is what was written last, and a damaged one is not guessed at", async () => {
  expect(await readPlugged(directory)).toEqual([])
  const disks = placeDisks([disk("a")])
  await writePlugged(directory, disks)
  expect(await readPlugged(directory)).toEqual(disks)
  const path = join(directory, "plugged.json")
  writeFileSync(path, readFileSync(path, "utf8").replace('"port": 0', '"port": 1'))
  await expect(readPlugged(directory)).rejects.toThrow("damaged")
  await writePlugged(directory, [])
  expect(await readPlugged(directory)).toEqual([])
  expect(first(disks).port).toBe(0)
})

test("a process may make files as long as it is allowed later, and never shorter ones", async () => {
  await using child = Bun.spawn(["sh", "-c", "ulimit -f 8; echo; exec sleep 60"], { stdout: "pipe" })
  await child.stdout.getReader().read()
  const limit = () =>
    /^Max file size +\S+ +(\S+)/m.exec(readFileSync(`/proc/${child.pid}/limits`, "utf8"))?.[1]
  const before = Number(limit())
  expect(allowFileBytes(child.pid, 1)).toBe(true)
  expect(Number(limit())).toBe(before)
  // Only a process with CAP_SYS_RESOURCE may, which a container's root often lacks.
  const rights = /^CapEff:\s+(\w+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]
  const mayRaise = ((BigInt(`0x${rights}`) >> 24n) & 1n) === 1n
  expect(allowFileBytes(child.pid, 1 << 20)).toBe(mayRaise)
  expect(Number(limit())).toBe(mayRaise ? 1 << 20 : before)
  child.kill("SIGKILL")
  await child.exited
  expect(allowFileBytes(child.pid, 1)).toBe(false)
})
