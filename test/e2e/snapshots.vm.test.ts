/**
 * Named snapshots on real machines: what is kept is whole, whatever the sandbox was doing, and nothing is left behind.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import type { Event } from "@bhatti/contract/event"
import type { Snapshot } from "@bhatti/contract/snapshot"
import { sealJson } from "../../src/lib/sealed-json.ts"
import { fileChecksum } from "../../src/lib/sparse-file.ts"
import { checkFilesystem } from "../support/filesystem.ts"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  await ok("create", "--name", "dev", "--env", "KEPT=yes", "--label", "team=web")
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function ok(...args: string[]): Promise<string> {
  const ran = await own.bhatti(args)
  expect([args[0], ran.exitCode, ran.exitCode === 0 ? "" : ran.stderr]).toEqual([args[0], 0, ""])
  return ran.stdout
}
const exec = (name: string, command: string) => ok("exec", name, "--", "sh", "-c", command)
const snapshots = async () => JSON.parse(await ok("snapshot", "list", "--json")) as Snapshot[]
const onDisk = () => readdirSync(join(own.dataDir, "snapshots"))

test("a PATH of the sandbox's own is for its commands, not for what the daemon runs there", async () => {
  const logged = own.daemonLog().length
  await ok("create", "--name", "bare", "--env", "PATH=/nowhere", "--init", "echo ran > out")
  await until("the init script ran", async () => {
    const { stdout } = await own.bhatti(["file", "read", "bare", "out"])
    return stdout === "ran\n"
  })
  await ok("snapshot", "create", "bare", "--name", "bare")
  expect(own.daemonLog().slice(logged)).not.toContain("could not write out its files")
  await ok("snapshot", "delete", "bare")
  await ok("destroy", "bare")
})

test("memory, a running process and files go on in each sandbox made from it, and the source does not notice", async () => {
  await exec("dev", "echo in-memory > /dev/shm/nonce; head -c 3000000 /dev/urandom > /workspace/data")
  await exec("dev", "cd /workspace && sha256sum data > sum")
  await exec(
    "dev",
    "(i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done) >/dev/null 2>&1 & echo started",
  )
  const watcher = own.start(["exec", "-i", "dev", "--", "cat"])
  const reader = watcher.stdout.getReader()
  await ok("snapshot", "create", "dev", "--name", "first")
  await exec("dev", "echo later > /dev/shm/nonce; echo later > /workspace/data")
  watcher.stdin.write("still here\n")
  await watcher.stdin.flush()
  expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("still here\n")
  watcher.stdin.end()
  await watcher.exited

  for (const name of ["one", "two"]) await ok("snapshot", "resume", "first", "--name", name)
  const probe =
    "cat /dev/shm/nonce; cd /workspace && sha256sum -c sum; cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1; echo $KEPT"
  const answers = await Promise.all(
    ["one", "two"].map(async (name) => (await exec(name, probe)).trim().split("\n")),
  )
  for (const answer of answers) expect(answer.slice(0, 2)).toEqual(["in-memory", "data: OK"])
  for (const line of [2, 3, 4]) expect(answers[0]?.[line]).not.toBe(answers[1]?.[line])
  for (const answer of answers) expect(answer[5]).toBe("yes")
  for (const name of ["one", "two", "dev"]) {
    const before = Number(await exec(name, "cat /dev/shm/count"))
    await until(`${name} counts on`, async () => Number(await exec(name, "cat /dev/shm/count")) > before)
  }
  expect(JSON.parse(await ok("inspect", "one", "--json"))).toMatchObject({
    labels: { team: "web" },
    status_reason: null,
  })
}, 300_000)

test("a snapshot with living sandboxes is deleted, and they live on, also stopped and started", async () => {
  await ok("stop", "two")
  await ok("snapshot", "delete", "first", "-y")
  expect(onDisk()).toEqual([])
  expect(await exec("one", "cat /dev/shm/nonce")).toBe("in-memory\n")
  expect(await exec("two", "cat /dev/shm/nonce; cd /workspace && sha256sum -c sum")).toBe(
    "in-memory\ndata: OK\n",
  )
  await ok("destroy", "-y", "one", "two")
}, 120_000)

test("a stopped sandbox is copied without waking it, and outlives its source", async () => {
  await ok("create", "--name", "cold")
  await exec("cold", "echo cold > /dev/shm/nonce")
  await ok("stop", "cold")
  const before = own.machines().length
  await ok("snapshot", "create", "cold", "--name", "icy")
  expect(own.machines()).toHaveLength(before)
  await ok("destroy", "-y", "cold")
  await ok("snapshot", "resume", "icy", "--name", "thawed")
  expect(await exec("thawed", "cat /dev/shm/nonce")).toBe("cold\n")
  await ok("destroy", "-y", "thawed")
  await ok("snapshot", "delete", "icy")
}, 180_000)

test("a memory that this host cannot load is not loaded: it boots from the disk, and says so everywhere", async () => {
  await exec("dev", "echo on-disk > /workspace/kept")
  await ok("snapshot", "create", "dev", "--name", "foreign")
  const [id = ""] = onDisk()
  const directory = join(own.dataDir, "snapshots", id)
  const inner = join(directory, "snapshot/manifest.json")
  const { checksum: _inner, ...memory } = JSON.parse(readFileSync(inner, "utf8"))
  await Bun.write(inner, sealJson({ ...memory, stateFingerprint: "0".repeat(16) }))
  const { checksum: _outer, ...outer } = JSON.parse(readFileSync(join(directory, "manifest.json"), "utf8"))
  outer.files["snapshot/manifest.json"] = {
    bytes: Bun.file(inner).size,
    checksum: await fileChecksum(inner),
  }
  await Bun.write(join(directory, "manifest.json"), sealJson(outer))

  const ran = await own.bhatti(["snapshot", "resume", "foreign", "--name", "booted"])
  expect(ran.exitCode).toBe(0)
  expect(ran.stderr).toContain(
    "its memory is lost, it booted from its disk: its memory snapshot was made by another QEMU or bhatti, or on another CPU\n",
  )
  expect(await exec("booted", "cat /workspace/kept; hostname; echo $KEPT; ls /dev/shm")).toBe(
    "on-disk\nbooted\nyes\n",
  )
  expect(await ok("why", "booted")).toContain(
    "its last start was a boot from its disk: its memory snapshot was",
  )
  const events = JSON.parse(await ok("events", "--type", "snapshot.resumed", "--json")) as Event[]
  expect(events.at(-1)?.meta).toMatchObject({ snapshot: "foreign", how: "disk" })
  await ok("destroy", "-y", "booted")
}, 300_000)

test("a damaged one is refused, and makes nothing", async () => {
  const [id = ""] = onDisk()
  const disk = join(own.dataDir, "snapshots", id, "disk.qcow2")
  const bytes = readFileSync(disk)
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 0xff, bytes.length - 1)
  await Bun.write(disk, bytes)
  const before = readdirSync(join(own.dataDir, "sandboxes"))
  const ran = await own.bhatti(["snapshot", "resume", "foreign"])
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("the snapshot is damaged: its disk was changed")
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toEqual(before)
  await ok("snapshot", "delete", "foreign")
}, 120_000)

/** A directory with a file and its sum appears at once, by rename, eight in turn. */
const writer = `cd /workspace && mkdir -p w && cd w && i=0
while :; do i=$((i+1)); k=$((i % 8)); mkdir new && (cd new && dd if=/dev/urandom of=f bs=64k count=16 2>/dev/null && sha256sum f > sum)
  mv d.$k old 2>/dev/null; rm -rf old; mv new d.$k; done`

test("of a sandbox that writes all the time each snapshot is whole: its files, and the filesystem by itself", async () => {
  await own.bhatti(["file", "write", "dev", "/workspace/writer"], { stdin: writer })
  await exec("dev", "setsid sh /workspace/writer >/dev/null 2>&1 & echo $! > /workspace/writer.pid")
  // With the programs that it has started, which would go on for a moment.
  const stopWriter =
    "pid=$(cat /workspace/writer.pid); kill -- -$pid; while pgrep -g $pid >/dev/null; do :; done"
  await until(
    "it writes",
    async () => Number(await exec("dev", "ls /workspace/w 2>&1 | grep -c d; true")) >= 8,
    {
      deadlineMs: 60_000,
    },
  )
  for (const name of ["busy-1", "busy-2", "busy-3"]) {
    await ok("snapshot", "create", "dev", "--name", name)
    expect(checkFilesystem(own, join(own.dataDir, "snapshots", onDisk()[0] ?? "", "disk.qcow2"))).toEqual({
      exitCode: 0,
      words: "",
    })
    await ok("snapshot", "resume", name, "--name", "copy")
    await exec("copy", stopWriter)
    const whole = await exec(
      "copy",
      "cd /workspace/w; for d in d.*; do (cd $d && sha256sum --quiet -c sum && echo whole); done 2>&1 | sort | uniq -c",
    )
    expect(whole.trim()).toMatch(/^[78] whole$/)
    expect(await exec("copy", "sudo dmesg | grep -ciE 'ext4.*error|I/O error'; true")).toBe("0\n")
    await ok("destroy", "-y", "copy")
    await ok("snapshot", "delete", name)
  }
  await exec("dev", stopWriter)
}, 400_000)

test("a daemon killed in the middle of a snapshot leaves the sandbox as it was and no half snapshot", async () => {
  await exec("dev", "head -c 100000000 /dev/urandom > /dev/shm/big; echo alive > /dev/shm/nonce")
  for (const stage of ["memory", "disk.qcow2"]) {
    let wasHalf = false
    for (let round = 0; round < 5 && !wasHalf; round++) {
      const making = own.start(["snapshot", "create", "dev", "--name", "half"])
      making.stdin.end()
      await until(`the ${stage} is being written`, () =>
        onDisk().some((name) => filesOf(join(own.dataDir, "snapshots", name)).includes(stage)),
      )
      await own.stopDaemon("SIGKILL")
      await making.exited
      await own.startDaemon()
      expect(await exec("dev", "cat /dev/shm/nonce")).toBe("alive\n")
      wasHalf = (await snapshots()).length === 0
      // On a busy host it was whole before the daemon died.
      if (!wasHalf) await ok("snapshot", "delete", "half", "-y")
      expect(onDisk()).toEqual([])
      expect(await snapshots()).toEqual([])
    }
    expect(wasHalf).toBe(true)
  }
  await exec("dev", "rm /dev/shm/big")
  await ok("snapshot", "create", "dev", "--name", "half")
  await ok("snapshot", "delete", "half")
}, 240_000)

function filesOf(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true }).map((name) => String(name).split("/").at(-1) ?? "")
  } catch (error) {
    // It may be renamed or removed while it is looked at.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return []
    throw error
  }
}

test("ten copies of a busy sandbox from one pause: ten memories and disks of one instant, ten identities", async () => {
  await exec(
    "dev",
    "(i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; echo $i > /workspace/count; sleep 0.02; done) >/dev/null 2>&1 & echo started",
  )
  await exec("dev", "head -c 3000000 /dev/urandom > /workspace/data; cd /workspace && sha256sum data > sum")
  const made = JSON.parse(
    await ok("create", "--from", "dev", "--name", "copy", "--count", "10", "--json"),
  ) as { name: string }[]
  const names = made.map(({ name }) => name)
  expect(names).toEqual(Array.from({ length: 10 }, (_, index) => `copy-${index + 1}`))
  expect(own.machines()).toHaveLength(11)
  const probe =
    "cd /workspace && sha256sum -c sum; cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1"
  const answers: string[][] = []
  for (const name of names) answers.push((await exec(name, probe)).trim().split("\n"))
  for (const answer of answers) expect(answer[0]).toBe("data: OK")
  for (const line of [1, 2, 3]) expect(new Set(answers.map((answer) => answer[line])).size).toBe(10)
  for (const name of [...names, "dev"]) {
    const before = Number(await exec(name, "cat /dev/shm/count"))
    await until(`${name} counts on`, async () => Number(await exec(name, "cat /dev/shm/count")) > before)
  }
  const events = JSON.parse(await ok("events", "--sandbox", "copy-1", "--json")) as Event[]
  console.log(
    `ten copies: ${events[0]?.meta["ms"]} ms, source paused ${events[0]?.meta["source_paused_ms"]} ms`,
  )
  await ok("destroy", "-y", ...names)
  expect(onDisk()).toEqual([])
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(1)
}, 400_000)
