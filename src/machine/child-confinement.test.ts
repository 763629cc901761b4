/**
 * The confinement of a forked machine, on a program in QEMU's place that forks as QEMU does
 * (test/support/zygote-stand-in.c). The child is hostile, and then the zygote is.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs"
import { join, resolve } from "node:path"
import launcher from "../../dist/jail" with { type: "file" }
import { until } from "../../test/support/installation.ts"
import {
  askForSenders,
  connectUnix,
  type Received,
  receiveMessage,
  sendDescriptors,
} from "../lib/descriptor-passing.ts"
import { listenUnix } from "../lib/posix.ts"
import { identityOf, startTicks } from "../lib/process-identity.ts"
import { answerChild, type ChildConfinement, childConfinement } from "./child-confinement.ts"
import { type Jail, prepareLauncher } from "./jail.ts"
import { KeptQemus } from "./kept-qemu.ts"
import { type Confinement, launch } from "./process.ts"

const isRoot = process.getuid?.() === 0
if (!isRoot) console.log("skipped: only root forks machines")
/** Where root can make groups of version 2. */
const cgroupRoot = isRoot
  ? /^\S+ (\S+) cgroup2 rw/m.exec(readFileSync("/proc/mounts", "utf8"))?.[1]
  : undefined
if (isRoot && cgroupRoot === undefined) console.log("skipped: no control groups of version 2")
/** User ids that no other test and no installation uses. */
const uidBase = 700_000 + (process.pid % 2000) * 50
/** Beyond those of their children. */
const firstZygoteUid = uidBase + 20
const fileBytesMax = 1_000_000
const library = "/usr/lib/x86_64-linux-gnu/libseccomp.so.2"
const devices = ["/dev/null"]

let home: string
let jail: Jail
let binary: string
const fds: number[] = []
const started: number[] = []

beforeAll(async () => {
  if (!isRoot) return
  home = mkdtempSync("/tmp/bhatti-child-")
  binary = join(home, "stand-in")
  const root = resolve(import.meta.dir, "../..")
  const sources = [join(root, "test/support/zygote-stand-in.c"), join(root, "zygote/confine.c"), library]
  const built = Bun.spawnSync([
    "gcc",
    "-std=gnu11",
    "-O1",
    "-Wall",
    "-I",
    join(root, "zygote"),
    "-o",
    binary,
    ...sources,
  ])
  expect(built.stderr.toString()).toBe("")
  const { size, mtimeMs } = statSync(binary)
  const qemu = { binary, version: "1", name: "1", identity: `version 1 ${size} ${mtimeMs}` }
  const qemus = await KeptQemus.open({ dataDir: home, qemu, forbidden: [], isOutside: false })
  jail = { launcher: await prepareLauncher({ dataDir: home, built: launcher }), root: qemus.present.root }
}, 60_000)
afterAll(() => {
  if (!isRoot) return
  for (const pid of started) if (startTicks(pid) !== undefined) process.kill(pid, "SIGKILL")
  for (const fd of fds) closeSync(fd)
  rmSync(home, { recursive: true, force: true })
})

type StandIn = { pid: number; path: string; uid: number }
let count = 0

async function startStandIn(more: Partial<Confinement> = {}): Promise<StandIn> {
  const path = join(home, `control-${++count}`)
  const control = listenUnix(path, "packets")
  const uid = firstZygoteUid + count
  const output = openSync(join(home, "output"), "a")
  fds.push(control, output)
  const confinement: Confinement = {
    ...{ jail, level: "full", uid, isZygote: true, isAlone: true, groups: [], devices },
    ...{ cgroup: undefined, fileBytesMax: Number.MAX_SAFE_INTEGER, ...more },
  }
  const pid = await launch({ binary, arguments: [], files: { memory: control }, confinement, output })
  started.push(pid)
  return { pid, path, uid: confinement.uid ?? uid }
}

function connectTo({ path }: StandIn): number {
  const socket = connectUnix(path, "packets")
  if (socket === undefined) throw new Error("the stand-in takes no connection")
  fds.push(socket)
  askForSenders(socket)
  return socket
}

const say = (socket: number, words: string) => sendDescriptors(socket, Buffer.from(words), [])

async function answerOf(socket: number): Promise<Received | "end"> {
  for (const end = Date.now() + 10_000; Date.now() < end; await Bun.sleep(1)) {
    const message = receiveMessage(socket)
    if (message !== "none") return message
  }
  throw new Error("it does not answer")
}

async function ask(socket: number, words: string): Promise<string> {
  say(socket, words)
  const answer = await answerOf(socket)
  return answer === "end" ? "ended" : answer.bytes.toString()
}

const wantedOf = (zygote: StandIn, uid: number): ChildConfinement => ({
  zygoteUid: zygote.uid,
  uid,
  cgroup: undefined,
  fileBytesMax,
  devices,
})

async function fork(zygote: StandIn, uid: number, wanted = wantedOf(zygote, uid)) {
  const socket = connectTo(zygote)
  say(socket, `fork ${uid}`)
  for (;;) {
    const message = await answerOf(socket)
    if (message === "end") throw new Error("the child has ended")
    if (message.pid !== zygote.pid) started.push(message.pid)
    if (!answerChild(socket, message, wanted))
      return { socket, pid: message.pid, words: message.bytes.toString() }
  }
}

/** Ends a process that may have ended itself. */
async function end(pid: number): Promise<void> {
  if (startTicks(pid) !== undefined) Bun.spawnSync(["kill", "-9", `${pid}`])
  await until("it is gone", () => startTicks(pid) === undefined)
}

const status = (pid: number) => readFileSync(`/proc/${pid}/status`, "utf8")
const fieldOf = (pid: number, name: string) =>
  new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(status(pid))?.[1]

describe.skipIf(!isRoot)("a machine that is forked", () => {
  let zygote: StandIn
  let child: Awaited<ReturnType<typeof fork>>
  let other: Awaited<ReturnType<typeof fork>>
  beforeAll(async () => {
    zygote = await startStandIn()
    child = await fork(zygote, uidBase + 1)
    other = await fork(zygote, uidBase + 2)
  })

  test("is a user of its own without rights, the first of its own namespaces, in a root of its own", () => {
    for (const [pid, uid] of [[child.pid, uidBase + 1] as const, [other.pid, uidBase + 2] as const]) {
      for (const ids of ["Uid", "Gid"]) expect(fieldOf(pid, ids)).toBe(Array(4).fill(uid).join("\t"))
      expect(fieldOf(pid, "Groups")).toBe("")
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
        expect(fieldOf(pid, set), set).toBe("0000000000000000")
      expect([fieldOf(pid, "NoNewPrivs"), fieldOf(pid, "Seccomp")]).toEqual(["1", "2"])
      expect(fieldOf(pid, "NSpid")).toBe(`${pid}\t1`)
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").trim().split("\n")
      expect(mounts.map((line) => line.split(" ")[4])).toEqual(["/", "/dev/null", "/proc"])
      expect(mounts[0]).toMatch(/ \/ \/? ?ro,nosuid,nodev|\/ ro,nosuid,nodev/)
      expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/^Max processes\s+1024\s+1024\s/m)
    }
    for (const kind of ["user", "mnt", "pid", "ipc", "uts", "net"]) {
      const seen = [child.pid, other.pid, zygote.pid, process.pid].map(
        (pid) => statSync(`/proc/${pid}/ns/${kind}`).ino,
      )
      // The zygote is in the host's of these two.
      expect(new Set(seen).size, kind).toBe(["user", "pid"].includes(kind) ? 3 : 4)
    }
  })

  test("is the C library's main thread as before: it locks and makes threads", () => {
    expect([child.words, other.words]).toEqual(["ok locks threads", "ok locks threads"])
  })

  test("is init's child, leads a session, and leaves no dead process behind", () => {
    const stat = (pid: number) => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? []
    for (const { pid } of [child, other]) {
      expect(Number(fieldOf(pid, "PPid"))).not.toBe(zygote.pid)
      expect(stat(pid)[3]).toBe(`${pid}`)
    }
    expect(readFileSync(`/proc/${zygote.pid}/task/${zygote.pid}/children`, "utf8")).toBe("")
  })

  test("sees neither its zygote nor a sibling, and has no right over them", async () => {
    for (const pid of [zygote.pid, other.pid, process.pid])
      expect(await ask(child.socket, `attack ${pid}`)).toBe("rights:")
  })

  test("is closed to its zygote, which may end it and no more", async () => {
    const socket = connectTo(zygote)
    expect(await ask(socket, `attack ${child.pid}`)).toBe("rights: limits signal priority")
  })
})

test.skipIf(cgroupRoot === undefined)(
  "a forked machine is in its control group before it may run, and its zygote stays in its own",
  async () => {
    const group = join(cgroupRoot ?? "", `bhatti-test-child-${process.pid}`)
    mkdirSync(group)
    try {
      const zygote = await startStandIn()
      const uid = uidBase + 8
      const child = await fork(zygote, uid, { ...wantedOf(zygote, uid), cgroup: group })
      expect(readFileSync(join(group, "cgroup.procs"), "utf8")).toBe(`${child.pid}\n`)
      for (const { pid } of [child, zygote]) await end(pid)
      await until("the group is empty", () => readFileSync(join(group, "cgroup.procs"), "utf8") === "")
    } finally {
      rmdirSync(group)
    }
  },
)

describe.skipIf(!isRoot)("a fork ends, and nothing of it is left,", () => {
  async function refused(zygote: StandIn, uid: number, wanted: ChildConfinement): Promise<unknown> {
    const error = await fork(zygote, uid, wanted).then(
      () => undefined,
      (error) => error,
    )
    await until("no child is left", () => startTicks(started.at(-1) ?? 0) === undefined)
    return error
  }

  test("if another process has its user id, which is named, if it is another zygote's child, or cannot be limited", async () => {
    const zygote = await startStandIn()
    const uid = uidBase + 3
    const holder = Bun.spawn(["setpriv", `--reuid=${uid}`, "--clear-groups", "--", "sleep", "60"])
    try {
      await until("it has that user id", () => fieldOf(holder.pid, "Uid")?.startsWith(`${uid}\t`) === true)
      await expect(fork(zygote, uid)).rejects.toThrow(`user id ${uid} is in use by process ${holder.pid}`)
    } finally {
      holder.kill("SIGKILL")
      await holder.exited
    }
    expect(await refused(zygote, uid, { ...wantedOf(zygote, uid), zygoteUid: uid + 1 })).toMatchObject({
      message: expect.stringContaining("its Uid is"),
    })
    expect(
      await refused(zygote, uid, { ...wantedOf(zygote, uid), cgroup: join(home, "no-group") }),
    ).toMatchObject({
      message: expect.stringContaining("ENOENT"),
    })
    await end(zygote.pid)
  })

  test("if it is not confined as the daemon wants it, or if the daemon answers otherwise or not at all", async () => {
    const zygote = await startStandIn()
    const uid = uidBase + 4
    expect(
      await refused(zygote, uid, { ...wantedOf(zygote, uid), devices: ["/dev/null", "/dev/kvm"] }),
    ).toMatchObject({
      message: "a forked machine is not confined: it sees / and /dev/null and /proc",
    })
    for (const answer of ["no", "grantedly", undefined]) {
      const socket = connectTo(zygote)
      say(socket, `fork ${uid}`)
      const { pid } = (await answerOf(socket)) as { pid: number }
      if (answer === undefined) closeSync(fds.splice(fds.indexOf(socket), 1)[0] ?? -1)
      else expect(await ask(socket, answer)).toBe("failed get its user from the daemon: EPERM")
      await until("it is gone", () => startTicks(pid) === undefined)
    }
    await end(zygote.pid)
  })
})

test("no machine is forked where it would have no user or no namespaces of its own, or needs a device of the host", () => {
  const self = identityOf(process.pid)
  if (self === undefined) throw new Error("this process has ended")
  const full: Confinement = {
    ...{ jail, level: "full", uid: 1, groups: [], devices, cgroup: undefined, fileBytesMax },
  }
  expect(childConfinement(self, full)).toMatchObject({ uid: 1, zygoteUid: process.getuid?.() })
  const lacking: Partial<Confinement>[] = [
    { level: "reduced" },
    { uid: undefined },
    { groups: [1] },
    { ownDevices: ["/dev/kvm"] },
  ]
  for (const less of lacking)
    expect(() => childConfinement(self, { ...full, ...less })).toThrow("no user and namespaces of its own")
  expect(() => childConfinement({ ...self, startTicks: 0 }, full)).toThrow("its zygote has ended")
})

test.skipIf(!isRoot)(
  "machines live on when their zygote is killed, and another zygote of that user has no access",
  async () => {
    const first = await startStandIn()
    const child = await fork(first, uidBase + 5)
    process.kill(first.pid, "SIGKILL")
    await until("the zygote is gone", () => startTicks(first.pid) === undefined)
    expect(identityOf(child.pid)).toBeDefined()
    expect(await ask(child.socket, "try 39 39")).toBe("39 done")
    const second = await startStandIn({ uid: first.uid })
    expect(await ask(connectTo(second), `attack ${child.pid}`)).toBe("rights: limits signal priority")
    process.kill(second.pid, "SIGKILL")
    process.kill(child.pid, "SIGKILL")
    await until(
      "both are gone",
      () => startTicks(second.pid) === undefined && startTicks(child.pid) === undefined,
    )
  },
)

/** More than the kernel has. */
const numbers = 480

test.skipIf(!isRoot)(
  "a forked machine may make exactly the system calls that another may",
  async () => {
    const outcomes = async (start: () => Promise<{ socket: number; pid: number }>) => {
      const found: string[] = []
      while (found.length < numbers) {
        const { socket, pid } = await start()
        say(socket, `try ${found.length} ${numbers - 1}`)
        for (let answer = ""; answer !== "ended" && found.length < numbers; found.push(answer)) {
          const message = await answerOf(socket)
          answer = message === "end" ? "ended" : message.bytes.toString()
        }
        await end(pid)
      }
      return found
    }
    const zygote = await startStandIn()
    const forked = await outcomes(() => fork(zygote, uidBase + 6))
    process.kill(zygote.pid, "SIGKILL")
    const plain = await outcomes(async () => {
      const one = await startStandIn({ isZygote: false, uid: uidBase + 7 })
      const socket = connectTo(one)
      expect(await ask(socket, "plain")).toBe("ok")
      return { socket, pid: one.pid }
    })
    expect(plain.filter((outcome) => outcome === "ended").length).toBeGreaterThan(10)
    expect(forked).toEqual(plain)
  },
  60_000,
)
