/**
 * Files of the data directory that are missing, empty, cut, changed or older than they should be, on real machines:
 * nobody ever gets other contents than those that were written, unless the reason is told.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { type Reply, Requests } from "../support/requests.ts"

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ config: "warm_after: 0\n" })
  requests = new Requests(own)
  await ok(requests.create("dev"))
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 60_000)

async function ok(going: Promise<Reply>): Promise<unknown> {
  const { status, body } = await going
  expect([status < 300, status < 300 ? undefined : body]).toEqual([true, undefined])
  return body
}

const directoryOf = async (name: string) =>
  join(own.dataDir, "sandboxes", (await requests.show(name))?.id ?? "none")
const reasonOf = async (name: string) => (await requests.show(name))?.status_reason
const start = (name: string) => requests.send("POST", `/sandboxes/${name}/start`, { force: true })

function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at)
  writeFileSync(path, bytes)
}

/** Where a qcow2 file has its tables. */
function tablesOf(path: string): { counts: number; first: number; second: number } {
  const bytes = readFileSync(path)
  const first = Number(bytes.readBigUInt64BE(40))
  let at = first
  while (bytes.readBigUInt64BE(at) === 0n) at += 8
  const second = Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n)
  return { counts: Number(bytes.readBigUInt64BE(48)), first, second }
}

const damages: [string, (path: string) => void][] = [
  ["missing", (path) => rmSync(path)],
  ["empty", (path) => truncateSync(path, 0)],
  ["cut by half", (path) => truncateSync(path, Math.floor(readFileSync(path).length / 2))],
  ["cut by a byte", (path) => truncateSync(path, readFileSync(path).length - 1)],
]
const diskDamages: typeof damages = [
  ...damages,
  ["changed in its header", (path) => flip(path, 30)],
  ["changed in its first table", (path) => flip(path, tablesOf(path).first + 5)],
  ["changed in a second table", (path) => flip(path, tablesOf(path).second + 4000)],
  ["changed in its reference counts", (path) => flip(path, tablesOf(path).counts + 7)],
]

/** Damages that a disk shows by itself, without the memory that knows its size and its tables. */
const unboundDamages: typeof damages = [
  ["missing", (path) => rmSync(path)],
  ["empty", (path) => truncateSync(path, 0)],
  ["cut within its tables", (path) => truncateSync(path, tablesOf(path).second + 4096)],
  ["changed in its header", (path) => flip(path, 2)],
]

describe("the disk of a stopped sandbox", () => {
  test("that is damaged is not started from: the error, the event and why name the file, and put back it has its memory", async () => {
    await requests.output("dev", "echo memory > /dev/shm/kept; echo disk > /workspace/kept")
    await ok(requests.stop("dev"))
    const disk = join(await directoryOf("dev"), "disk.qcow2")
    copyFileSync(disk, `${own.dataDir}/whole`)
    for (const [what, damage] of diskDamages) {
      damage(disk)
      const { status, body } = await start("dev")
      expect([what, status, JSON.stringify(body)]).toEqual([
        what,
        503,
        expect.stringContaining("disk.qcow2 is damaged: "),
      ])
      expect(own.machines()).toEqual([])
      copyFileSync(`${own.dataDir}/whole`, disk)
    }
    expect((await own.bhatti(["why", "dev"])).stdout).toContain("disk.qcow2 is damaged: ")
    expect((await own.bhatti(["events", "--type", "sandbox.start_failed"])).stdout).toContain(
      "disk.qcow2 is damaged: ",
    )
    await ok(start("dev"))
    expect(await requests.output("dev", "cat /dev/shm/kept /workspace/kept")).toBe("memory\ndisk\n")
  }, 120_000)

  test("that is an older copy is not used with the newer memory, though only contents differ", async () => {
    const write = (what: string) =>
      `dd if=/dev/zero bs=1M count=1 2>/dev/null | tr '\\0' ${what} | dd of=/workspace/same conv=notrunc,fsync 2>/dev/null`
    await requests.output("dev", write("a"))
    await ok(requests.stop("dev"))
    const disk = join(await directoryOf("dev"), "disk.qcow2")
    copyFileSync(disk, `${own.dataDir}/older`)
    await requests.output("dev", `${write("b")}; echo memory > /dev/shm/kept`)
    await ok(requests.stop("dev"))
    copyFileSync(`${own.dataDir}/older`, disk)
    expect(await requests.output("dev", "head -c 4 /workspace/same; ls /dev/shm")).toBe("aaaa")
    expect(await reasonOf("dev")).toContain("disk.qcow2 is an older or another copy")
  }, 120_000)

  test("of one that has no memory is checked as far as it says something of itself", async () => {
    await requests.output("dev", "sync")
    void requests.exec("dev", "sudo sh -c 'echo o > /proc/sysrq-trigger'")
    const disk = join(await directoryOf("dev"), "disk.qcow2")
    await until("its end is known", async () => (await requests.show("dev"))?.status === "stopped")
    copyFileSync(disk, `${own.dataDir}/whole`)
    for (const [what, damage] of unboundDamages) {
      damage(disk)
      const { status, body } = await start("dev")
      expect([what, status, JSON.stringify(body)]).toEqual([
        what,
        503,
        expect.stringContaining("disk.qcow2 is damaged: "),
      ])
      copyFileSync(`${own.dataDir}/whole`, disk)
    }
    await ok(start("dev"))
    expect(await requests.output("dev", "head -c 4 /workspace/same")).toBe("aaaa")
  }, 120_000)
})

test("the manifest of a stopped sandbox's memory with one byte changed is not believed: it boots from its disk", async () => {
  await requests.output("dev", "echo memory > /dev/shm/kept")
  await ok(requests.stop("dev"))
  const manifest = join(await directoryOf("dev"), "snapshot", "manifest.json")
  flip(manifest, readFileSync(manifest, "utf8").indexOf('"tables"') + 12)
  expect(await requests.output("dev", "head -c 4 /workspace/same; ls /dev/shm")).toBe("aaaa")
  expect(await reasonOf("dev")).toContain("its memory snapshot is damaged: manifest.json was changed")
}, 120_000)

test("each damaged file of a named snapshot is named, and nothing is made from it but what is whole", async () => {
  await requests.output("dev", "echo memory > /dev/shm/kept; echo disk > /workspace/kept")
  const { id } = (await ok(requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }))) as {
    id: string
  }
  const directory = join(own.dataDir, "snapshots", id)
  const others: typeof damages = [...damages, ["changed", (path) => flip(path, 300)]]
  for (const name of [
    "disk.qcow2",
    "manifest.json",
    "snapshot/memory",
    "snapshot/state",
    "snapshot/manifest.json",
  ]) {
    const path = join(directory, name)
    copyFileSync(path, `${own.dataDir}/whole`)
    for (const [what, damage] of name === "disk.qcow2" ? diskDamages : others) {
      // Loading the pages shows their damage: the copy has only its disk then, and says so.
      const isOnlyChanged = name === "snapshot/memory" && what === "changed"
      damage(path)
      const { status, body } = await requests.send("POST", "/snapshots/kept/resume", { name: "copy" })
      const wanted = isOnlyChanged ? "a memory snapshot is damaged" : "the snapshot is damaged: "
      expect([name, what, status, JSON.stringify(body)]).toEqual([
        name,
        what,
        isOnlyChanged ? 201 : 503,
        expect.stringContaining(wanted),
      ])
      copyFileSync(`${own.dataDir}/whole`, path)
      if (!isOnlyChanged) continue
      expect(await requests.output("copy", "cat /workspace/kept; ls /dev/shm")).toBe("disk\n")
      await ok(requests.destroy("copy"))
    }
  }
  await ok(requests.send("POST", "/snapshots/kept/resume", { name: "copy" }))
  expect(await requests.output("copy", "cat /dev/shm/kept")).toBe("memory\n")
  await ok(requests.destroy("copy"))
  await ok(requests.send("DELETE", "/snapshots/kept"))
}, 240_000)

describe("a template", () => {
  const templates = () => readdirSync(join(own.dataDir, "templates"))

  test("whose memory was changed is used by nobody: what was made from it boots from its disk, a create makes a new one", async () => {
    await requests.output("dev", "echo disk > /workspace/kept; sync; sync")
    const memories: string[] = []
    // A clone starts from its template's memory, unlike a sandbox that was booted from its disk.
    await ok(requests.create("cloned"))
    await requests.output("cloned", "echo disk > /workspace/kept")
    await ok(requests.stop("cloned"))
    await own.stopDaemon("SIGTERM")
    for (const id of templates()) memories.push(join(own.dataDir, "templates", id, "memory"))
    for (const memory of memories) flip(memory, 40_000_000)
    await own.startDaemon()
    const before = templates()
    await ok(requests.create("new"))
    expect(templates().length).toBe(before.length + 1)
    expect(await requests.output("new", "hostname")).toBe("new\n")
    expect(await requests.output("cloned", "cat /workspace/kept")).toBe("disk\n")
    expect(await reasonOf("cloned")).toMatch(/template \S+ is damaged: its memory was changed/)
    expect(own.daemonLog()).toMatch(/template \S+ is damaged: its memory was changed/)
  }, 240_000)

  test("whose disk was changed carries no sandbox, and a create makes a new one", async () => {
    await ok(requests.stop("cloned"))
    await ok(requests.destroy("new"))
    await own.stopDaemon("SIGTERM")
    const whole = new Map<string, Buffer>()
    for (const id of templates()) {
      const disk = join(own.dataDir, "templates", id, "disk.qcow2")
      whole.set(disk, readFileSync(disk))
      flip(disk, readFileSync(disk).length - 100)
    }
    await own.startDaemon()
    const { status, body } = await start("cloned")
    expect([status, JSON.stringify(body)]).toEqual([
      503,
      expect.stringMatching(/template \S+ is damaged: its disk.qcow2 was changed/),
    ])
    await ok(requests.create("new"))
    for (const [disk, bytes] of whole) if (existsSync(disk)) writeFileSync(disk, bytes)
    await ok(start("cloned"))
    expect(await requests.output("cloned", "cat /workspace/kept")).toBe("disk\n")
  }, 240_000)
})
