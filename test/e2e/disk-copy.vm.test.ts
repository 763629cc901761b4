/**
 * Copies of a large disk, on real machines, while its guest writes to it: each is whole, and a destroy waits for none.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { checkFilesystem } from "../support/filesystem.ts"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { type Reply, Requests } from "../support/requests.ts"

let own: Installation
let requests: Requests
beforeAll(async () => {
  own = await install({ config: "warm_after: 0\n" })
  requests = new Requests(own)
  await make("dev", 40)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

async function ok(going: Promise<Reply>): Promise<unknown> {
  const { status, body } = await going
  expect([status < 300, status < 300 ? undefined : body]).toEqual([true, undefined])
  return body
}

/** A sandbox with that many files of 10 MB, all different, on its disk. */
async function make(name: string, files: number): Promise<Sandbox> {
  const made = (await ok(requests.create(name))) as Sandbox
  const script = `mkdir /workspace/large && cd /workspace/large && head -c 10000000 /dev/urandom > seed
    for i in $(seq ${files}); do (echo $i; cat seed) > $i; done; sync`
  await requests.output(name, script)
  return made
}

/** A fork and a snapshot; in the long form two of each. */
const rounds = process.env["BHATTI_TEST_LONG"] === "1" ? 4 : 2

/**
 * Goes on for ever: a directory with a file and its sum appears and goes at once, by rename, eight in turn; and a file
 * is written to in the middle, block after block, each of which says of itself what is in it.
 */
const writer = `
import hashlib, itertools, os, shutil
os.makedirs("/workspace/w", exist_ok=True)
os.chdir("/workspace/w")
def keep(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
blocks = os.open("blocks", os.O_RDWR | os.O_CREAT, 0o644)
for i in itertools.count():
    content = os.urandom(1 << 20)
    os.mkdir("new")
    keep("new/f", content)
    keep("new/sum", (hashlib.sha256(content).hexdigest() + "  f\\n").encode())
    shutil.rmtree("old", ignore_errors=True)
    if i >= 8: os.rename("d.%d" % (i % 8), "old")
    os.rename("new", "d.%d" % (i % 8))
    for j in range(4):
        body = os.urandom(4064)
        os.pwrite(blocks, hashlib.sha256(body).digest() + body, (i * 7919 + j * 104729) % 16384 * 4096)
    os.fsync(blocks)
`

/** Checks the writer's directory, from within. */
const checkWritten = `set -e
for d in d.*; do (cd $d && sha256sum --quiet -c sum); done
python3 - <<'END'
import hashlib
found = 0
with open("blocks", "rb") as file:
    while block := file.read(4096):
        if block.count(0) == len(block): continue
        assert hashlib.sha256(block[32:]).digest() == block[:32], "block %d" % (file.tell() // 4096)
        found += 1
assert found > 8, found
END`

/**
 * In a copy: what its memory knows of the disk is forgotten first. An emulated processor takes a third of the time for
 * MD5, and nobody makes two files alike here.
 */
const checkInside = `set -e
kill $(cat /workspace/writer.pid)
sync; sudo sh -c 'echo 3 > /proc/sys/vm/drop_caches'
(cd /workspace/large && md5sum --quiet -c /workspace/sums)
cd /workspace/w
${checkWritten}
! sudo dmesg | grep -iE 'ext4.*error|I/O error'
echo whole`

test("each fork and each snapshot of one that writes and syncs all the time has its files, and a file system that is whole", async () => {
  await ok(requests.exec("dev", "cd /workspace/large && md5sum * > /workspace/sums"))
  const written = await own.bhatti(["file", "write", "dev", "/workspace/writer"], { stdin: writer })
  expect(written.exitCode).toBe(0)
  await requests.output(
    "dev",
    "setsid python3 /workspace/writer </dev/null >/dev/null 2>&1 & echo $! > /workspace/writer.pid",
  )
  const directories = "ls -d /workspace/w/d.* 2>/dev/null | wc -l"
  await until("it writes", async () => Number(await requests.output("dev", directories)) >= 7)
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) await ok(requests.create("copy", { from: "dev" }))
    else {
      const kept = await ok(requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }))
      const disk = join(own.dataDir, "snapshots", (kept as { id: string }).id, "disk.qcow2")
      const atRest = { of: "/workspace/w", check: checkWritten }
      expect(checkFilesystem(own, disk, atRest)).toEqual({ exitCode: 0, words: "" })
      await ok(requests.send("POST", "/snapshots/kept/resume", { name: "copy" }))
      await ok(requests.send("DELETE", "/snapshots/kept"))
    }
    expect(await requests.output("copy", checkInside)).toBe("whole\n")
    const copy = (await ok(requests.stop("copy"))) as Sandbox
    const disk = join(own.dataDir, "sandboxes", copy.id, "disk.qcow2")
    const atRest = { of: "/workspace/w", check: checkWritten }
    expect(checkFilesystem(own, disk, atRest)).toEqual({ exitCode: 0, words: "" })
    await ok(requests.destroy("copy"))
  }
  const paused = (await ok(requests.send("GET", "/events?sandbox=dev"))) as {
    meta: Record<string, unknown>
  }[]
  console.log("paused, ms:", paused.map(({ meta }) => meta["source_paused_ms"]).filter(Boolean))
  expect(await requests.output("dev", checkInside)).toBe("whole\n")
}, 600_000)

/** When some of the disk is copied, in the draft or in a sandbox that is made of it. */
function isCopied(part: "snapshots" | "sandboxes", before: Set<string>): Promise<void> {
  return until("its disk is copied", () =>
    readdirSync(join(own.dataDir, part))
      .filter((id) => !before.has(id))
      .map((id) => join(own.dataDir, part, id, "disk.qcow2"))
      .some((disk) => existsSync(disk) && statSync(disk).blocks * 512 > 20_000_000),
  )
}

test("a stopped source can be started while a snapshot of it is made", async () => {
  await ok(requests.stop("dev"))
  const before = new Set(readdirSync(join(own.dataDir, "snapshots")))
  const answered: string[] = []
  const kept = requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }).then((reply) => {
    answered.push("snapshot")
    return reply
  })
  await isCopied("snapshots", before)
  await ok(requests.start("dev"))
  answered.push("start")
  await ok(kept)
  expect(answered).toEqual(["start", "snapshot"])
  await ok(requests.send("POST", "/snapshots/kept/resume", { name: "copy" }))
  const sums = "cd /workspace/large && sha256sum 1 40"
  expect(await requests.output("copy", sums)).toBe(await requests.output("dev", sums))
  await ok(requests.destroy("copy"))
  await ok(requests.send("DELETE", "/snapshots/kept"))
}, 180_000)

describe("a destroy wins within two seconds", () => {
  async function destroyDuring(
    name: string,
    part: "snapshots" | "sandboxes",
    start: () => Promise<Reply>,
  ): Promise<void> {
    const before = new Set(readdirSync(join(own.dataDir, part)))
    const going = start()
    await isCopied(part, before)
    const startedAt = performance.now()
    await ok(requests.destroy(name))
    const ms = Math.round(performance.now() - startedAt)
    const { status } = await going
    console.log(`destroyed ${name} after ${ms} ms, during a copy to ${part} that was answered ${status}`)
    expect(ms).toBeLessThan(2000 * patience)
    expect([201, 409]).toContain(status)
    expect(await requests.show(name)).toBeUndefined()
    expect(await requests.leftovers()).toEqual([])
  }

  const drafts = () => readdirSync(join(own.dataDir, "snapshots")).filter((name) => name.startsWith("tmp-"))

  test("over a copy, while it is captured and while it is placed", async () => {
    const fork = () => requests.create("copy", { from: "dev" })
    await destroyDuring("copy", "snapshots", fork)
    const several = () => requests.send("POST", "/sandboxes/batch", { from: "dev", name: "copy", count: 3 })
    await destroyDuring("copy-2", "sandboxes", several)
    for (const { name } of await requests.list()) if (name !== "dev") await ok(requests.destroy(name))
    await ok(requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }))
    await destroyDuring("copy", "sandboxes", () =>
      requests.send("POST", "/snapshots/kept/resume", { name: "copy" }),
    )
    await ok(requests.send("DELETE", "/snapshots/kept"))
    expect(drafts()).toEqual([])
    expect(await requests.output("dev", "hostname")).toBe("dev\n")
  }, 180_000)

  test("over the source of a fork and of a snapshot", async () => {
    await destroyDuring("dev", "snapshots", () => requests.create("copy", { from: "dev" }))
    if (await requests.show("copy")) await ok(requests.destroy("copy"))
    await make("dev", 40)
    await destroyDuring("dev", "snapshots", () =>
      requests.send("POST", "/sandboxes/dev/checkpoint", { name: "kept" }),
    )
    await requests.send("DELETE", "/snapshots/kept")
    expect(readdirSync(join(own.dataDir, "snapshots"))).toEqual([])
  }, 240_000)
})
