/** Stopping, waking and losing machines, on real ones: what is in memory, on disk and running must be as it was. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, patience, until } from "../support/installation.ts"
import { residentMib } from "../support/resident.ts"

/** By hand more: POWER_CYCLES=50. */
const cycles = Number(process.env["POWER_CYCLES"] ?? 8)
let own: Installation
beforeAll(async () => {
  own = await install({ isForked: true })
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (...args: string[]) => (await own.bhatti(["exec", "dev", "--", ...args])).stdout
const post = (path: string) =>
  fetch(`${own.url}${path}`, { method: "POST", headers: { authorization: `Bearer ${own.key}` } })

async function stop(): Promise<void> {
  const answer = await post("/sandboxes/dev/stop")
  expect(await answer.json()).toMatchObject({ status: "stopped", thermal: "cold" })
}

test("three times stopped and woken: memory, a running process and a file are as they were", async () => {
  const counter = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done"
  const pid = (await exec("sh", "-c", `(${counter}) >/dev/null 2>&1 & echo $!`)).trim()
  await exec("sh", "-c", "echo in-memory > /dev/shm/nonce; echo on-disk > /workspace/file")
  for (let round = 0; round < 3; round++) {
    const before = Number(await exec("cat", "/dev/shm/count"))
    await stop()
    expect(own.machines()).toHaveLength(0)
    expect(await exec("cat", "/dev/shm/nonce", "/workspace/file")).toBe("in-memory\non-disk\n")
    await until("the process counts on", async () => Number(await exec("cat", "/dev/shm/count")) > before)
    expect(await exec("sh", "-c", `kill -0 ${pid} && echo alive`)).toBe("alive\n")
    expect(Math.abs(Number(await exec("date", "+%s")) - Date.now() / 1000)).toBeLessThan(10 * patience)
  }
}, 180_000)

test("a wake gives other random numbers than the wake before it", async () => {
  const draws: string[] = []
  for (let round = 0; round < 2; round++) {
    await stop()
    draws.push(await exec("sh", "-c", "head -c 16 /dev/urandom | od -An -tx1"))
  }
  expect(draws[0]).not.toBe(draws[1])
}, 120_000)

test("a large working set comes back unchanged", async () => {
  await exec(
    "sh",
    "-c",
    "head -c 64000000 /dev/urandom > /dev/shm/big; sha256sum /dev/shm/big > /dev/shm/sum",
  )
  await stop()
  expect(await exec("sh", "-c", "sha256sum -c /dev/shm/sum")).toBe("/dev/shm/big: OK\n")
  await exec("rm", "/dev/shm/big")
}, 120_000)

type Used = Record<"descriptors" | "threads" | "processes" | "residentMib" | "diskMib" | "cgroups", number>

/** Measures what the daemon and its one stopped sandbox take of the host. */
function usedOfHost(): Used {
  const pid = own.daemonPid()
  const entries = (path: string) => readdirSync(path).length
  const { stdout } = Bun.spawnSync(["du", "--summarize", "--block-size=1M", join(own.dataDir, "sandboxes")])
  return {
    descriptors: entries(`/proc/${pid}/fd`),
    threads: entries(`/proc/${pid}/task`),
    processes: readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").length,
    residentMib: Math.round(residentMib(pid)),
    diskMib: Number.parseInt(stdout.toString(), 10),
    cgroups: countCgroups(),
  }
}

/** Counts the control groups of its machines; none where the host offers no controllers. */
function countCgroups(): number {
  const id = new Bun.CryptoHasher("sha256").update(own.dataDir).digest("hex").slice(0, 8)
  const directory = `/sys/fs/cgroup/bhatti-${id}`
  if (!existsSync(directory)) return 0
  return readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory()).length
}

test(`${cycles} times stopped and woken leave nothing behind: descriptors, threads, processes, memory, disk`, async () => {
  const cycle = async () => {
    expect(await exec("cat", "/dev/shm/nonce")).toBe("in-memory\n")
    await stop()
  }
  await exec("sh", "-c", "echo in-memory > /dev/shm/nonce")
  // The first ones fill caches.
  for (let round = 0; round < 3; round++) await cycle()
  const before = usedOfHost()
  for (let round = 0; round < cycles; round++) await cycle()
  const after = usedOfHost()
  console.log(`${cycles} times stopped and woken:`, { before, after })
  expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + 2)
  expect(after.threads).toBeLessThanOrEqual(before.threads + 2)
  expect(after.processes).toBeLessThanOrEqual(before.processes)
  expect(after.cgroups).toBeLessThanOrEqual(before.cgroups)
  expect(after.residentMib).toBeLessThan(before.residentMib + 40)
  // The memory that a guest touches grows for a while, up to what its template has touched.
  expect(after.diskMib).toBeLessThan(before.diskMib + 10)
  expect(own.machines()).toEqual([])
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(1)
}, 900_000)

test("a sandbox that switches itself off boots from its disk at the next request", async () => {
  await exec("sh", "-c", "echo kept > /workspace/after; sync")
  await own.bhatti(["exec", "dev", "--", "sudo", "sh", "-c", "echo o > /proc/sysrq-trigger"], {
    deadlineMs: 20_000,
  })
  await until("the daemon knows", async () => (await own.bhatti(["list"])).stdout.includes("stopped"))
  expect(await exec("cat", "/workspace/after")).toBe("kept\n")
  await stop()
  expect(await exec("cat", "/workspace/after")).toBe("kept\n")
}, 120_000)

test("a sandbox that boots takes of the host what its guest uses and not its whole size, and keeps its memory after that", async () => {
  const [pid = 0] = own.machines()
  process.kill(pid, "SIGKILL")
  await until("the daemon knows", async () => (await own.bhatti(["list"])).stdout.includes("stopped"))
  await exec(
    "sh",
    "-c",
    "head -c 100000000 /dev/urandom > /dev/shm/big; sha256sum /dev/shm/big > /dev/shm/sum",
  )
  const [machine = 0] = own.machines()
  expect(readlinkSync(`/proc/${machine}/fd/3`)).toBe("/dev/zero")
  const guestMib = () => {
    const smaps = readFileSync(`/proc/${machine}/smaps`, "utf8")
    return Number(/ \/dev\/zero\n[\s\S]*?Rss: +(\d+)/.exec(smaps)?.[1]) / 1024
  }
  expect(guestMib()).toBeGreaterThan(95)
  expect(guestMib()).toBeLessThan(320)
  await stop()
  expect(await exec("sh", "-c", "sha256sum -c /dev/shm/sum; rm /dev/shm/big")).toBe("/dev/shm/big: OK\n")
}, 120_000)

test("a machine that another build has started, with another CPU for its guest, boots from its disk and says why", async () => {
  await exec("sh", "-c", "echo memory > /dev/shm/other; echo disk > /workspace/other; sync")
  const [pid = 0] = own.machines()
  // Where the daemon that started it has written what it is.
  const environment = readFileSync(`/proc/${pid}/environ`, "latin1")
  const at = environment.indexOf("BHATTI_STATE=") + "BHATTI_STATE=".length
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
  const start = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[47])
  const memory = openSync(`/proc/${pid}/mem`, "r+")
  writeSync(memory, "another-build---", start + at)
  closeSync(memory)
  await stop()
  expect(await exec("sh", "-c", "cat /workspace/other /dev/shm/other 2>/dev/null || true")).toBe("disk\n")
  expect((await own.bhatti(["why", "dev"])).stdout).toContain(
    "made by another QEMU or bhatti, or on another CPU",
  )
  // From then on it is one of ours.
  await exec("sh", "-c", "echo memory > /dev/shm/other")
  await stop()
  expect(await exec("cat", "/dev/shm/other")).toBe("memory\n")
}, 120_000)

test("a stopped sandbox outlives the daemon, killed or not", async () => {
  await exec("sh", "-c", "echo still > /dev/shm/still")
  await stop()
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  expect(await exec("cat", "/dev/shm/still")).toBe("still\n")
}, 120_000)

test.each(["SIGKILL", "SIGTERM"] as const)(
  "a running sandbox can be stopped and woken by the daemon after one that got %s",
  async (signal) => {
    await exec("sh", "-c", `echo ${signal} > /dev/shm/across`)
    await own.stopDaemon(signal)
    await own.startDaemon()
    await stop()
    expect(await exec("cat", "/dev/shm/across")).toBe(`${signal}\n`)
  },
  120_000,
)

test("a damaged snapshot is not used: the sandbox boots from its disk", async () => {
  await exec("sh", "-c", "echo disk > /workspace/damaged; sync")
  await stop()
  const [id = ""] = readdirSync(join(own.dataDir, "sandboxes"))
  const memory = join(own.dataDir, "sandboxes", id, "snapshot", "memory")
  const bytes = readFileSync(memory)
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 0xff, bytes.length - 1)
  await Bun.write(memory, bytes)
  expect(await exec("sh", "-c", "cat /workspace/damaged; ls /dev/shm")).toBe("disk\n")
}, 120_000)
