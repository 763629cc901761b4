/**
 * Space that a guest frees is given back to the host, on real machines: its content is in no file of the sandbox's, and
 * travels into no copy.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Sandbox } from "@bhatti/contract/sandbox"
import type { Snapshot } from "@bhatti/contract/snapshot"
import { checkFilesystem } from "../support/filesystem.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { type Reply, Requests } from "../support/requests.ts"

let own: Installation
let requests: Requests
let dev: Sandbox
beforeAll(async () => {
  own = await install({ config: "warm_after: 0\n" })
  requests = new Requests(own)
  dev = (await ok(requests.create("dev"))) as Sandbox
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 60_000)

async function ok(going: Promise<Reply>): Promise<unknown> {
  const { status, body } = await going
  expect([status < 300, status < 300 ? undefined : body]).toEqual([true, undefined])
  return body
}

const diskOf = ({ id }: { id: string }, where = "sandboxes") => join(own.dataDir, where, id, "disk.qcow2")
const mibOf = (path: string) => (statSync(path).blocks * 512) / 1024 / 1024
const canary = "a canary of 32 bytes, once a line"

/** Files on the disk, which are deleted before the copy, as is what was in them. */
const writeAndDelete = `cd /workspace && yes '${canary}' | head -c 60000000 > canary && head -c 20000000 /dev/urandom > other
  sync && rm canary other && echo kept > kept`

/** In bytes. */
function canariesIn(path: string): number {
  const bytes = readFileSync(path)
  let count = 0
  for (let at = bytes.indexOf(canary); at >= 0; at = bytes.indexOf(canary, at + 1)) count++
  return count * (canary.length + 1)
}

/** Blocks shared with files that still exist: less than one of the host's units at either end. */
const endsBytes = 2 * 65_536

test("of 80 MB that were written and deleted no whole unit is in a snapshot's disk, nor in that of its sandbox", async () => {
  await requests.output("dev", `${writeAndDelete}; true`)
  expect(mibOf(diskOf(dev))).toBeGreaterThan(60)
  const kept = (await ok(requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }))) as Snapshot
  for (const disk of [diskOf(kept, "snapshots"), diskOf(dev)]) {
    expect(mibOf(disk)).toBeLessThan(20)
    expect(canariesIn(disk)).toBeLessThan(endsBytes)
    expect(checkFilesystem(own, disk)).toEqual({ exitCode: 0, words: "" })
  }
  await ok(requests.send("POST", "/snapshots/kept/resume", { name: "copy" }))
  expect(await requests.output("copy", "cat /workspace/kept")).toBe("kept\n")
  await ok(requests.destroy("copy"))
  await ok(requests.send("DELETE", "/snapshots/kept"))
}, 120_000)

test("nor in a fork's", async () => {
  await requests.output("dev", `${writeAndDelete}; true`)
  const copy = (await ok(requests.create("copy", { from: "dev" }))) as Sandbox
  expect(mibOf(diskOf(copy))).toBeLessThan(20)
  expect(canariesIn(diskOf(copy))).toBeLessThan(endsBytes)
  expect(await requests.output("copy", "cat /workspace/kept")).toBe("kept\n")
  await ok(requests.destroy("copy"))
}, 120_000)

test("it is given back by a stop, and when the sandbox is paused", async () => {
  await requests.output("dev", `${writeAndDelete}; true`)
  await ok(requests.stop("dev"))
  expect(mibOf(diskOf(dev))).toBeLessThan(20)
  expect(canariesIn(diskOf(dev))).toBeLessThan(endsBytes)

  await requests.output("dev", `${writeAndDelete}; true`)
  await ok(requests.send("PATCH", "/sandboxes/dev", { warm_after: 1 }))
  await until("it is paused", async () => (await requests.show("dev"))?.thermal === "warm", {
    deadlineMs: 60_000,
  })
  expect(mibOf(diskOf(dev))).toBeLessThan(20)
  await ok(requests.send("PATCH", "/sandboxes/dev", { warm_after: 0 }))
}, 120_000)

test("and after a boot from its disk, when the kernel knows nothing of what was given back before", async () => {
  await requests.exec("dev", "sudo sh -c 'sync; echo o > /proc/sysrq-trigger'")
  await until("its end is known", async () => (await requests.show("dev"))?.status === "stopped")
  await requests.output("dev", `${writeAndDelete}; true`)
  await ok(requests.stop("dev"))
  expect(mibOf(diskOf(dev))).toBeLessThan(20)
  expect(await requests.output("dev", "cat /workspace/kept")).toBe("kept\n")
}, 120_000)

test("memory that was freed is neither in a snapshot nor in what a stop keeps, files on the disk included", async () => {
  await ok(requests.create("freeing"))
  const { id } = (await requests.show("freeing")) as Sandbox
  const allocate = `python3 -c 'x = b"${canary}" * 2000000'`
  await requests.output(
    "freeing",
    `yes '${canary}' | head -c 60000000 > /dev/shm/freed; rm /dev/shm/freed; ${allocate}`,
  )
  await requests.output("freeing", writeAndDelete)
  await ok(requests.stop("freeing"))
  const memory = join(own.dataDir, "sandboxes", id, "snapshot", "memory")
  // 180 MB were freed. On a busy host the guest may not have given back all of its caches.
  expect(mibOf(memory)).toBeLessThan(40 + 180 / 4)
  // Ends of pages, and what the agent's own channel has carried.
  expect(canariesIn(memory)).toBeLessThan(endsBytes)
  expect(await requests.output("freeing", "cat /workspace/kept")).toBe("kept\n")
  await ok(requests.destroy("freeing"))
}, 120_000)

test("nor is it where the sandbox has booted from its disk, and its programs and their memory are as they were", async () => {
  await ok(requests.create("booted"))
  const { id } = (await requests.show("booted")) as Sandbox
  await requests.exec("booted", "sudo sh -c 'sync; echo o > /proc/sysrq-trigger'")
  await until("its end is known", async () => (await requests.show("booted"))?.status === "stopped")
  // Tells its pid and the digest of its memory when the file is gone.
  const holder = `python3 -c 'import hashlib, os, time
held = os.urandom(40000000)
while True:
    if not os.path.exists("/dev/shm/holds"):
        open("/dev/shm/said", "w").write("%d %s" % (os.getpid(), hashlib.sha256(held).hexdigest()))
        os.rename("/dev/shm/said", "/dev/shm/holds")
    time.sleep(0.2)'`
  const holds = "rm -f /dev/shm/holds; until [ -e /dev/shm/holds ]; do sleep 0.1; done; cat /dev/shm/holds"
  const free = `python3 -c 'x = b"${canary}" * 3000000'
    yes '${canary}' | head -c 100000000 > /dev/shm/freed; rm /dev/shm/freed`
  await requests.output("booted", `setsid ${holder} > /dev/null 2>&1 < /dev/null & ${free}`)
  const before = await requests.output("booted", holds)
  await ok(requests.stop("booted"))
  const memory = join(own.dataDir, "sandboxes", id, "snapshot", "memory")
  // On a busy host the guest's time may end before all of it is overwritten.
  const [freedMib, usedMib, freedBytes] = [190, 120, 200_000_000]
  expect(mibOf(memory)).toBeLessThan(usedMib + freedMib / 4)
  expect(canariesIn(memory)).toBeLessThan(freedBytes / 4)
  expect(await requests.output("booted", holds)).toBe(before)

  // From the memory that it was saved with, too.
  await requests.output("booted", `${free}; true`)
  const kept = (await ok(requests.send("POST", "/sandboxes/booted/checkpoint", { name: "kept" }))) as Snapshot
  expect(canariesIn(join(own.dataDir, "snapshots", kept.id, "snapshot", "memory"))).toBeLessThan(
    freedBytes / 4,
  )
  expect(await requests.output("booted", holds)).toBe(before)
  await ok(requests.send("DELETE", "/snapshots/kept"))
  await ok(requests.destroy("booted"))
}, 180_000)
