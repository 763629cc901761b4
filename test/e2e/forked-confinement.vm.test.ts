/** A forked machine has the rights of a cloned one, as the kernel shows, and shares no more than it must. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { isAlive, startTicks } from "../../src/lib/process-identity.ts"
import { controllers } from "../../src/machine/cgroups.ts"
import { checkSeparation } from "../../src/machine/zygote-trial.ts"
import type { Zygote } from "../../src/machine/zygotes.ts"
import { ForkedMachines, run, type TestMachine } from "../support/forked-machines.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { answerOf, type Call, filtersOf, rightsOf, userOf } from "../support/kernel-books.ts"

let own: Installation
let forked: ForkedMachines
let zygote: Zygote
let machines: { cloned: Seen; one: Seen; two: Seen }
let uidBase: number
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "x"])).exitCode).toBe(0)
  await own.stopDaemon("SIGTERM")
  uidBase = Number(/^uid_base: (\d+)$/m.exec(readFileSync(join(own.dataDir, "config.yaml"), "utf8"))?.[1])
  forked = await ForkedMachines.open(own)
  const cloned = await make(undefined)
  zygote = await forked.makeZygote()
  machines = { cloned, one: await make(zygote), two: await make(zygote) }
}, 600_000)
afterAll(async () => {
  await forked?.[Symbol.asyncDispose]()
  await own[Symbol.asyncDispose]()
}, 60_000)

type Seen = TestMachine & { pid: number; uid: number }

async function make(from: Zygote | undefined): Promise<Seen> {
  const made = await forked.create(from)
  expect(forked.unforked).toEqual([])
  return { ...made, pid: made.machine.process.pid, uid: uidBase + made.slot }
}

test("a forked machine has exactly the rights of a cloned one, as another user", () => {
  const { cloned, one, two } = machines
  for (const { pid, uid } of [cloned, one, two]) expect(userOf(pid)).toEqual(Array(8).fill(`${uid}`))
  expect(rightsOf(one.pid)).toEqual(rightsOf(cloned.pid))
  expect(rightsOf(two.pid)).toEqual(rightsOf(cloned.pid))
  for (const kind of ["mnt", "pid", "ipc", "uts", "net"]) {
    const all = [cloned.pid, one.pid, two.pid, process.pid]
    expect(new Set(all.map((pid) => statSync(`/proc/${pid}/ns/${kind}`).ino)).size, kind).toBe(4)
  }
})

/** Each system call with no arguments, and with arguments that some filter looks at. */
function calls(): Call[] {
  const flags = [0, 17, 0x0120_0011, 0x7e20_0111, 0x7f20_0111, 0x003d_0f00]
  const bits = Array.from({ length: 32 }, (_, bit) => 2 ** bit)
  const values = [...flags, ...bits, 0x4030_5828, 0x4030_582a, 0x4030_5839, 0x10, 3, 5]
  const numbers = Array.from({ length: 480 }, (_, number) => number)
  return [
    ...numbers.flatMap((number) => [
      { number },
      { number: number + 0x4000_0000 },
      { number, architecture: 0x4000_0003 },
    ]),
    ...[16, 56, 141, 144, 203, 285].flatMap((number) =>
      values.flatMap((value) => [
        { number, arguments: [value, 0] },
        { number, arguments: [0, value] },
        { number, arguments: [(0x003d_0f00 | value) >>> 0, value] },
      ]),
    ),
  ]
}

test("the kernel answers each system call of a forked machine as one of a cloned one, and a zygote's but few otherwise", () => {
  const [ofClone, ofFork, ofZygote] = [machines.cloned.pid, machines.one.pid, zygote.process.pid].map(
    filtersOf,
  )
  const differing = (filters = ofFork) =>
    calls().filter((call) => answerOf(filters ?? [], call) !== answerOf(ofClone ?? [], call))
  expect(ofClone?.length).toBe(2)
  expect(new Set(calls().map((call) => answerOf(ofClone ?? [], call))).size).toBeGreaterThan(3)
  expect(differing()).toEqual([])
  const named = new Set(differing(ofZygote).map(({ number }) => number))
  // clone, setsid, setresuid, setresgid, mount
  expect([...named].toSorted((a, b) => a - b)).toEqual([56, 112, 117, 119, 165])
})

test("a zygote has no capability, and its user id is nobody else's", () => {
  const status = readFileSync(`/proc/${zygote.process.pid}/status`, "utf8")
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
    expect(status).toMatch(new RegExp(`^${set}:\t0000000000000000$`, "m"))
  const [user] = userOf(zygote.process.pid)
  expect(Number(user) - uidBase).toBeGreaterThan(64_000)
  expect(readFileSync(`/proc/${zygote.process.pid}/mountinfo`, "utf8")).toContain("hidepid=ptraceable")
})

const filesOf = (pid: number) =>
  readdirSync(`/proc/${pid}/fd`).map((fd) => ({
    name: readlinkSync(`/proc/${pid}/fd/${fd}`),
    flags: Number.parseInt(
      /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1] ?? "0",
      8,
    ),
  }))

test("a forked machine can write to its own disk and device state only, and holds nothing of its zygote or a sibling", () => {
  const { one, two } = machines
  for (const { pid, directory } of [one, two]) {
    const files = filesOf(pid)
    const written = files.filter(({ name, flags }) => name.startsWith(own.dataDir) && (flags & 3) !== 0)
    expect([...new Set(written.map(({ name }) => name))].toSorted()).toEqual([
      join(directory, "device-state"),
      join(directory, "disk.qcow2"),
    ])
    const kinds =
      /^(\/dev\/(null|zero|net\/tun)|socket:.*|pipe:.*|anon_inode:\[?(eventfd|signalfd|eventpoll)\]?|\/memfd:bhatti-(template|shared) \(deleted\))$/
    const shared = ["templates", "images", "kits"].map((name) => join(own.dataDir, name))
    const foreign = files.filter(
      ({ name }) => !kinds.test(name) && ![directory, ...shared].some((path) => name.startsWith(path)),
    )
    expect(foreign).toEqual([])
  }
  checkSeparation(one.pid, two.pid)
  for (const { pid } of [one, two]) checkSeparation(pid, zygote.process.pid)
})

const groups = "/sys/fs/cgroup"
const hasGroups =
  existsSync(join(groups, "cgroup.controllers")) &&
  controllers.needed.every((name) => readFileSync(join(groups, "cgroup.controllers"), "utf8").includes(name))
if (!hasGroups) console.log("skipped: no control groups of version 2 with controllers")

test.skipIf(!hasGroups)(
  "a forked machine has a control group with a cloned one's limits, which counts its own memory, ends it alone, and goes with it",
  async () => {
    const groupOf = (pid: number) => {
      const [, path = ""] = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8")) ?? []
      return join(groups, path)
    }
    const { cloned, one, two } = machines
    const limitsOf = (pid: number) =>
      ["memory.max", "memory.oom.group", "cpu.max", "pids.max", "cpu.weight.nice"].map((name) =>
        readFileSync(join(groupOf(pid), name), "utf8"),
      )
    for (const { pid } of [one, two]) {
      expect(limitsOf(pid)).toEqual(limitsOf(cloned.pid))
      expect(readFileSync(join(groupOf(pid), "cgroup.procs"), "utf8")).toBe(`${pid}\n`)
    }
    expect(new Set([cloned.pid, one.pid, two.pid, zygote.process.pid].map(groupOf)).size).toBe(4)
    expect(groupOf(one.pid)).toEndWith(`/${one.id}`)

    const usedMib = (pid: number) =>
      Number(readFileSync(join(groupOf(pid), "memory.current"), "utf8")) / 2 ** 20
    const before = { one: usedMib(one.pid), two: usedMib(two.pid) }
    await run(one.guest, ["sh", "-c", "head -c 60000000 /dev/zero > /dev/shm/filled"])
    expect(usedMib(one.pid) - before.one).toBeGreaterThan(50)
    expect(usedMib(two.pid) - before.two).toBeLessThan(20)

    const third = await make(zygote)
    const group = groupOf(third.pid)
    // Less than it holds, so that the kernel ends it when it takes more.
    writeFileSync(join(group, "memory.swap.max"), "0")
    writeFileSync(join(group, "memory.max"), `${8 * 2 ** 20}`)
    void run(third.guest, ["sh", "-c", "head -c 60000000 /dev/zero > /dev/shm/filled"]).catch(() => undefined)
    await until("the kernel has ended it", () => startTicks(third.pid) === undefined, { deadlineMs: 120_000 })
    expect(await forked.machines.fateOf(third.machine, { deadlineMs: 0 })).toEqual({ how: "out_of_memory" })
    await forked.end(third)
    expect(existsSync(group)).toBe(false)
    for (const { guest } of [one, two]) expect(await run(guest, ["echo", "alive"])).toBe("alive\n")
  },
  600_000,
)

/** First addresses of what is mapped before any machine is made: the heap of each grows. */
const layoutOf = (pid: number) =>
  readFileSync(`/proc/${pid}/maps`, "utf8")
    .split("\n")
    .filter((line) => /(\.so[.\d]*|qemu-system-x86_64|\[heap\]|\[vdso\])$/.test(line))
    .map((line) => `${line.split("-")[0]} ${line.split(/[/ ]/).at(-1)}`)
    .filter(
      (line, index, all) => all.findIndex((other) => other.split(" ")[1] === line.split(" ")[1]) === index,
    )

test("siblings have one layout of addresses, the zygote's, and a clone has another", () => {
  const { cloned, one, two } = machines
  expect(layoutOf(one.pid)).toEqual(layoutOf(zygote.process.pid))
  expect(layoutOf(two.pid)).toEqual(layoutOf(one.pid))
  expect(layoutOf(cloned.pid)).not.toEqual(layoutOf(one.pid))
})

test("forked machines live on when their zygote is killed, their end leaves no process, and the next zygote has another layout", async () => {
  const { one } = machines
  const before = layoutOf(one.pid)
  process.kill(zygote.process.pid, "SIGKILL")
  await until("the zygote is gone", () => !isAlive(zygote.process))
  expect(await run(one.guest, ["echo", "alive"])).toBe("alive\n")
  const next = await forked.makeZygote()
  expect(layoutOf(next.process.pid)).not.toEqual(before)
  expect(userOf(next.process.pid)[0]).not.toBe(userOf(one.pid)[0] ?? "")
  const third = await make(next)
  await forked.end(third)
  expect(startTicks(third.pid)).toBeUndefined()
  const users = [third.uid, Number(userOf(next.process.pid)[0])]
  const { stdout } = Bun.spawnSync(["ps", "-o", "pid=,ppid=,stat=", "-U", users.join()])
  // A dead process that is init's is init's to bury.
  const left = stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/ +/))
    .filter(([, parent, state]) => parent !== "1" || !state?.startsWith("Z"))
  expect(left.map(([pid]) => Number(pid))).toEqual([next.process.pid])
})
