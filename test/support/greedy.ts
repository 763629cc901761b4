/**
 * Runs as root in a sandbox, whose kernel offers every controller: our control groups and our launcher, with a greedy
 * program in QEMU's place. Prints what became of it as JSON. Its argument is the launcher.
 */

import { chmodSync, mkdtempSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { hostBootId, isAlive, type ProcessIdentity, startTicks } from "../../src/lib/process-identity.ts"
import { Cgroups, diskOf } from "../../src/machine/cgroups.ts"
import { readKernelLog, wasKilledForMemory } from "../../src/machine/out-of-memory.ts"
import { isGoneWithin, launch } from "../../src/machine/process.ts"
import { until } from "./installation.ts"

const mountPoint = "/sys/fs/cgroup"
const dataDir = "/var/lib"
const shape = { cpus: 1, memoryMib: 64, accelerator: "kvm", network: "tap" } as const
const bytesPerSec = 1024 * 1024
const uid = 700_001

const [launcher = ""] = process.argv.slice(2)
const place = mkdtempSync("/var/tmp/greedy-")
chmodSync(place, 0o777)
const disk = { device: diskOf(dataDir) ?? "", bytesPerSec }
const cgroups = Cgroups.open({ mountPoint, dataDir, disk })

async function start(name: string, program: string[], options: { isFree?: boolean } = {}) {
  const cgroup = options.isFree ? undefined : cgroups.make(name, shape)
  const [binary = "", ...rest] = program
  const jail = { launcher, root: "" }
  const confinement = {
    jail,
    level: "reduced",
    uid,
    groups: [],
    devices: [],
    cgroup,
    fileBytesMax: 2 ** 30,
  } as const
  const output = openSync(join(place, "log"), "a")
  const pid = await launch({
    binary,
    arguments: rest,
    files: {},
    confinement: { ...confinement, groups: [], devices: [] },
    output,
  })
  const identity: ProcessIdentity = { pid, startTicks: startTicks(pid) ?? 0, bootId: hostBootId }
  const number = (file: string, field: RegExp) =>
    Number(field.exec(readFileSync(join(cgroup ?? "", file), "utf8"))?.[1])
  return {
    identity,
    number,
    async end() {
      if (cgroup !== undefined) {
        writeFileSync(join(cgroup, "cgroup.kill"), "1")
        await until("its group is empty", () => number("cgroup.events", /^populated (\d)/m) === 0)
      }
      cgroups.remove(name)
    },
  }
}

const python = (script: string) => ["/usr/bin/python3", "-c", script]
const takeMemory = python("x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))")

async function memory() {
  const bystander = await start("bystander", ["/usr/bin/sleep", "600"])
  const hog = await start("hog", takeMemory)
  await isGoneWithin(hog.identity, { deadlineMs: 60_000 })
  const result = {
    itWasKilledForMemory: cgroups.ranOutOfMemory("hog"),
    theKernelsLogSaysSo: wasKilledForMemory(await readKernelLog(), hog.identity),
    theOtherLives: isAlive(bystander.identity),
    theOtherWasKilledForMemory: cgroups.ranOutOfMemory("bystander"),
  }
  await hog.end()
  await bystander.end()
  return result
}

async function threads() {
  const bomb = await start(
    "bomb",
    python("import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.1)"),
  )
  await until("it is refused more", () => bomb.number("pids.events", /^max (\d+)/m) > 0)
  const count = bomb.number("pids.current", /(\d+)/)
  await bomb.end()
  return count
}

async function processor() {
  const busy = await start("busy", ["/bin/sh", "-c", "for i in 1 2 3; do while :; do :; done & done; wait"])
  await until("it is throttled", () => busy.number("cpu.stat", /^nr_throttled (\d+)/m) > 3)
  await busy.end()
  return true
}

async function bandwidth() {
  const seconds = 3
  const words = ["/bin/dd", "if=/dev/zero", `of=${join(place, "file")}`, "bs=256k", "oflag=direct"]
  const startedAt = performance.now()
  const writer = await start("writer", [...words, `count=${4 * (seconds + 1)}`])
  await isGoneWithin(writer.identity, { deadlineMs: 60_000 })
  const tookMs = performance.now() - startedAt
  const written = writer.number("io.stat", /wbytes=(\d+)/)
  await writer.end()
  return { tookAtLeastItsTime: tookMs > seconds * 1000, wroteAll: written >= (seconds + 1) * bytesPerSec }
}

/** Without a group, as on a host without controllers: the kernel chooses the machine, not who started it. */
async function hostMemory() {
  const hog = await start("free", takeMemory, { isFree: true })
  await isGoneWithin(hog.identity, { deadlineMs: 120_000 })
  return {
    itWasKilledForMemory: wasKilledForMemory(await readKernelLog(), hog.identity),
    itsGroupSaysSo: cgroups.ranOutOfMemory("free"),
  }
}

/** Two that compute, one of which gives way: it gets less. */
async function giving() {
  const program = ["/bin/sh", "-c", "for i in 1 2; do while :; do :; done & done; wait"]
  const [normal, lower] = [await start("normal", program), await start("lower", program)]
  cgroups.setNiceness("lower", 19)
  const usage = (one: typeof normal) => one.number("cpu.stat", /^usage_usec (\d+)/m)
  const before = [usage(normal), usage(lower)]
  await until("they have computed", () => usage(normal) - (before[0] ?? 0) > 2_000_000)
  const lowersPart = (usage(lower) - (before[1] ?? 0)) / (usage(normal) - (before[0] ?? 0))
  await normal.end()
  await lower.end()
  // The other may use one and a quarter of the two processors, and with equal rights both would get one.
  return lowersPart < 0.8
}

const found = {
  lowerPriorityGetsLess: await giving(),
  memory: await memory(),
  threads: await threads(),
  processor: await processor(),
  bandwidth: await bandwidth(),
  hostMemory: await hostMemory(),
}
cgroups.close()
const left = readdirSync(mountPoint).filter((name) => name.startsWith("bhatti-"))
console.log(JSON.stringify({ ...found, left }))
