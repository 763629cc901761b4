/** The rights of a real machine's QEMU on the host, read from the host's own books, and who can read its files. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { trust } from "@bhatti/contract/trust"
import { fileBytesMax } from "../../src/machine/file-bounds.ts"
import { binary, type Installation, install, until } from "../support/installation.ts"
import { nameOfMachine } from "../support/requests.ts"

let own: Installation
let machines: number[]
beforeAll(async () => {
  // As a service it leads a session of its own.
  own = await install({ launcher: ["setsid"], isForked: true })
  for (const name of ["one", "two"]) expect((await own.bhatti(["create", "--name", name])).exitCode).toBe(0)
  machines = own.machines()
  expect(machines.length).toBe(2)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const status = (pid: number) => readFileSync(`/proc/${pid}/status`, "utf8")
const field = (pid: number, name: string) => new RegExp(`^${name}:[ \\t]+(.*)$`, "m").exec(status(pid))?.[1]
const namespace = (pid: number, kind: string) => statSync(`/proc/${pid}/ns/${kind}`).ino

/** No file that it writes to becomes longer. */
const longestFileOf = (pid: number) =>
  Number(/^Max file size +(\d+) +\1 /m.exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.[1])

const usesKvm = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("\0kvm\0")

describe("a machine's QEMU", () => {
  test("has a user of its own, no capabilities, no way to new ones, and a system call filter", () => {
    const users = machines.map((pid) => field(pid, "Uid"))
    expect(new Set(users).size).toBe(2)
    for (const pid of machines) {
      const [real, effective, saved, files] = (field(pid, "Uid") ?? "").split("\t").map(Number)
      expect(real).toBeGreaterThan(999_999)
      expect(new Set([real, effective, saved, files]).size).toBe(1)
      expect(field(pid, "Gid")).toBe(field(pid, "Uid") ?? "")
      // Under KVM the group of its device, unless that is root's or open to all.
      const groups = ["", ...(usesKvm(pid) ? [`${statSync("/dev/kvm").gid}`] : [])]
      expect(groups).toContain(field(pid, "Groups")?.trim() ?? "")
      expect(field(pid, "Groups")?.trim()).not.toBe("0")
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
        expect(field(pid, set), set).toBe("0000000000000000")
      expect(field(pid, "NoNewPrivs")).toBe("1")
      expect(field(pid, "Seccomp")).toBe("2")
    }
  })

  test.skipIf(!existsSync("/proc/self/autogroup"))(
    "the daemon goes before machines, also where the kernel shares processors among sessions first",
    () => {
      const niceness = (pid: number) =>
        /nice (-?\d+)$/m.exec(readFileSync(`/proc/${pid}/autogroup`, "utf8"))?.[1]
      expect(niceness(own.daemonPid())).toBe("-5")
      expect(machines.map(niceness)).toEqual(["0", "0"])
    },
  )

  test("is alone in its namespaces", () => {
    for (const kind of ["mnt", "pid", "ipc", "uts", "net"]) {
      const seen = [...machines, own.daemonPid(), process.pid].map((pid) => namespace(pid, kind))
      expect(new Set(seen).size, kind).toBe(3)
    }
    for (const pid of machines) expect(field(pid, "NSpid")).toBe(`${pid}\t1`)
  })

  test("has a root directory without anything of the data directory or of the host", () => {
    for (const pid of machines) {
      const root = `/proc/${pid}/root`
      expect(readdirSync(root).sort()).toEqual(["dev", "etc", "lib", "lib64", "proc", "usr"])
      expect(readdirSync(`${root}/etc`)).toEqual(["ld.so.cache"])
      expect(readdirSync(`${root}/usr/bin`)).toEqual(["qemu-system-x86_64"])
      const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8")
        .trim()
        .split("\n")
        .map((line) => line.split(" ").slice(4, 6).join(" "))
      expect(mounts.map((line) => line.split(" ")[0]).sort()).toEqual(
        [
          "/",
          "/dev/null",
          "/proc",
          ...(mounts.some((line) => line.startsWith("/dev/kvm ")) ? ["/dev/kvm"] : []),
        ].sort(),
      )
      expect(mounts[0]).toMatch(/^\/ ro,nosuid,nodev/)
    }
  })

  test("holds its own files and nothing of another sandbox or of the daemon", () => {
    const ids = machines.map(nameOfMachine)
    expect(new Set(ids).size).toBe(2)
    for (const [index, pid] of machines.entries()) {
      const targets = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      const foreign = targets.filter(
        (target) =>
          !/^(\/dev\/(null|zero|net\/tun|kvm)|socket:.*|pipe:.*|anon_inode:\[?(eventfd|signalfd|eventpoll|kvm.*)\]?|\/memfd:bhatti-(template|shared) \(deleted\))$/.test(
            target,
          ) &&
          !target.startsWith(join(own.dataDir, "sandboxes", String(ids[index]))) &&
          !target.startsWith(join(own.dataDir, "templates")) &&
          !target.startsWith(join(own.dataDir, "images")) &&
          !target.startsWith(join(own.dataDir, "kits")),
      )
      expect(foreign).toEqual([])
    }
  })

  test("can write to its own disk and its device state only", () => {
    for (const pid of machines) {
      const writable = readdirSync(`/proc/${pid}/fd`).filter((fd) => {
        const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1]
        return (Number.parseInt(flags ?? "0", 8) & 3) !== 0
      })
      const names = writable
        .map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
        .filter((target) => target.startsWith(own.dataDir))
        .map((target) => target.slice(target.lastIndexOf("/") + 1))
      expect([...new Set(names)].sort()).toEqual(["device-state", "disk.qcow2"])
    }
  })

  test("dumps no core and has limits of its own", () => {
    for (const pid of machines) {
      const limits = readFileSync(`/proc/${pid}/limits`, "utf8")
      expect(limits).toMatch(/^Max core file size\s+0\s+0\s/m)
      expect(limits).toMatch(/^Max open files\s+1024\s+1024\s/m)
      expect(limits).toMatch(/^Max processes\s+1024\s+1024\s/m)
      expect(longestFileOf(pid)).toBe(fileBytesMax(8192))
      expect(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8")).toBe("500\n")
    }
  })

  test("may make no file longer than its own disk needs, also one with a larger disk and its copies, which have all of it", async () => {
    const create = await own.bhatti(["create", "--name", "large", "--disk", "12G"])
    expect(create.exitCode).toBe(0)
    expect((await own.bhatti(["create", "--from", "large", "--name", "copy"])).exitCode).toBe(0)
    const added = own.machines().filter((pid) => !machines.includes(pid))
    expect(added.map(longestFileOf)).toEqual([fileBytesMax(12_288), fileBytesMax(12_288)])
    const size = ["sudo", "sh", "-c", "blockdev --getsize64 /dev/vda; df --output=size -BG / | tail -1"]
    expect((await own.bhatti(["exec", "copy", "--", ...size])).stdout).toMatch(/^12884901888\n +12G\n$/)
    for (const name of ["large", "copy"])
      expect((await own.bhatti(["destroy", name, "--yes"])).exitCode).toBe(0)
  })

  test("has a device state that is no longer after several copies than after the first", async () => {
    const path = join(own.dataDir, "sandboxes", nameOfMachine(machines[0] ?? 0), "device-state")
    const sizes: number[] = []
    for (const copy of ["first", "second", "third"]) {
      const source = nameOfMachine(machines[0] ?? 0)
      expect((await own.bhatti(["create", "--from", source, "--name", copy])).exitCode).toBe(0)
      sizes.push(statSync(path).size)
      expect((await own.bhatti(["destroy", copy, "--yes"])).exitCode).toBe(0)
    }
    expect(sizes[0]).toBeGreaterThan(0)
    expect(Math.max(...sizes)).toBeLessThan(2 * (sizes[0] ?? 0))
  })

  test("is nobody's child, without a terminal, and outlives a daemon that is killed", async () => {
    for (const pid of machines) {
      expect(Number(field(pid, "PPid"))).not.toBe(own.daemonPid())
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
      const [, , , session, terminal] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      expect([Number(session), Number(terminal)]).toEqual([pid, 0])
    }
    await own.stopDaemon("SIGKILL")
    expect(own.machines()).toEqual(machines)
    await own.startDaemon()
    expect((await own.bhatti(["exec", "one", "--", "echo", "still here"])).stdout).toBe("still here\n")
    expect(own.machines()).toEqual(machines)
  })

  test("is confined the same way when it wakes from disk, and when it boots", async () => {
    const check = (pid: number | undefined) => {
      expect(pid).toBeDefined()
      if (pid === undefined) return
      expect(field(pid, "CapEff")).toBe("0000000000000000")
      expect(field(pid, "Seccomp")).toBe("2")
      expect(longestFileOf(pid)).toBe(fileBytesMax(8192))
      expect(readdirSync(`/proc/${pid}/root`).sort()).toEqual(["dev", "etc", "lib", "lib64", "proc", "usr"])
    }
    const machineOfTwo = () => own.machines().find((pid) => !machines.slice(0, 2).includes(pid))
    const before = own.machines()
    expect((await own.bhatti(["stop", "two"])).exitCode).toBe(0)
    const [gone] = before.filter((pid) => !own.machines().includes(pid))
    expect(gone).toBeDefined()
    expect((await own.bhatti(["exec", "two", "--", "true"])).exitCode).toBe(0)
    check(machineOfTwo())
    // A machine that is killed on the host starts again from its disk.
    const woken = machineOfTwo()
    if (woken !== undefined) process.kill(woken, "SIGKILL")
    await until("the daemon knows", async () => (await own.bhatti(["list"])).stdout.includes("stopped"))
    expect((await own.bhatti(["exec", "two", "--", "true"])).exitCode).toBe(0)
    check(machineOfTwo())
  })
})

describe("what the host cannot promise", () => {
  const isEmulated = async () => {
    const version = JSON.parse((await own.bhatti(["version", "--daemon", "--json"])).stdout)
    return (version as { accelerator: string }).accelerator === "tcg"
  }

  test("software emulation is named in the version, by the doctor, when a user is made, and in the API", async () => {
    const version = await own.bhatti(["version", "--daemon"])
    const made = await own.bhatti(["user", "create", "--name", "warned", "--data-dir", own.dataDir])
    const doctor = await own.bhatti(["doctor", "--data-dir", own.dataDir])
    const answer = await fetch(`${own.url}/version`, { headers: { authorization: `Bearer ${own.key}` } })
    const texts = [version.stdout, made.stderr, doctor.stdout, await answer.text()]
    expect(texts.map((text) => text.includes(trust.emulation))).toEqual(Array(4).fill(await isEmulated()))
  })

  test("require_kvm serves nothing on a host without KVM", async () => {
    if (!(await isEmulated())) return
    const directory = mkdtempSync("/tmp/bhatti-test-")
    try {
      // The kernel is found through links, the daemon never gets as far as using it.
      cpSync(join(own.dataDir, "kernels"), join(directory, "kernels"), { recursive: true })
      writeFileSync(join(directory, "config.yaml"), "require_kvm: true\nlisten: 127.0.0.1:1\n")
      const refused = await own.bhatti(["serve", "--data-dir", directory])
      expect(refused.exitCode).toBe(1)
      expect(refused.stderr).toContain("KVM is not usable")
      expect(refused.stderr).toContain("require_kvm: true")
      const doctor = await own.bhatti(["doctor", "--data-dir", directory])
      expect(doctor.exitCode).toBe(1)
      expect(doctor.stdout).toContain("the daemon does not serve")
      writeFileSync(join(directory, "config.yaml"), "require_kvm: true\naccel: tcg\n")
      expect((await own.bhatti(["serve", "--data-dir", directory])).stderr).toContain("require_kvm")
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  test("a host that refuses namespaces is not served unless the operator accepts less", async () => {
    const directory = mkdtempSync("/tmp/bhatti-test-")
    try {
      cpSync(join(own.dataDir, "kernels"), join(directory, "kernels"), { recursive: true })
      writeFileSync(join(directory, "config.yaml"), "listen: 127.0.0.1:1\n")
      // A user who may make no namespaces: without capabilities, and without a mapping for user namespaces.
      const without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", "--"]
      const run = () =>
        Bun.spawnSync([...without, binary, "serve", "--data-dir", directory], {
          env: { PATH: process.env["PATH"] ?? "", HOME: directory },
          timeout: 30_000,
        })
      const refused = run()
      expect(refused.exitCode).toBe(1)
      expect(refused.stderr.toString()).toContain("QEMU cannot be started confined")
      expect(refused.stderr.toString()).toContain("confinement: reduced")
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })
})

test("reduced confinement is named, and still leaves QEMU no right", async () => {
  await using other = await install({ config: "confinement: reduced\n" })
  expect((await other.bhatti(["create", "--name", "x"])).exitCode).toBe(0)
  const [pid = 0] = other.machines()
  expect(namespace(pid, "pid")).toBe(namespace(process.pid, "pid"))
  expect(field(pid, "CapEff")).toBe("0000000000000000")
  expect(field(pid, "CapBnd")).toBe("0000000000000000")
  expect(field(pid, "NoNewPrivs")).toBe("1")
  expect(field(pid, "Seccomp")).toBe("2")
  expect((await other.bhatti(["version", "--daemon"])).stdout).toContain(trust.reduced)
  expect((await other.bhatti(["doctor", "--data-dir", other.dataDir])).stdout).toContain(trust.reduced)
}, 300_000)

test("sockets and files are their owner's alone, whatever the umask of the daemon is", async () => {
  const modes: string[][] = []
  for (const umask of [0o000, 0o077]) {
    const before = process.umask(umask)
    let other: Installation | undefined
    try {
      other = await install({ pool: 0 })
      expect((await other.bhatti(["create", "--name", "x"])).exitCode).toBe(0)
      expect((await other.bhatti(["secret", "set", "KEY", "value"])).exitCode).toBe(0)
      expect((await other.bhatti(["create", "--name", "y"])).exitCode).toBe(0)
      expect((await other.bhatti(["stop", "y"])).exitCode).toBe(0)
      const { dataDir } = other
      await until("both rows are kept beside the disks", () => {
        const kept = modesIn(dataDir).filter((line) => line.endsWith("/SANDBOX/record.json"))
        return kept.length === 2
      })
      modes.push(modesIn(dataDir))
    } finally {
      process.umask(before)
      await other?.[Symbol.asyncDispose]()
    }
  }
  const [open, closed] = modes
  // Zygotes come in the background, each with a directory of its own.
  const settled = (lines: string[] = []) => lines.filter((line) => !/ \/(zygotes|fork-trial)/.test(line))
  expect(settled(open)).toEqual(settled(closed))
  // Kernels, kits, images and the jail's root hold nothing of anybody.
  const own = open?.filter((line) => !/ \/(qemu\/HASH\/root|kernels|kits|images)/.test(line))
  expect(own?.filter((line) => !/^[67]00 /.test(line))).toEqual([])
  expect(open?.filter((line) => line.includes(".sock")).every((line) => line.startsWith("600 "))).toBe(true)
}, 600_000)

/** Every path with its mode; names that are made up anew each time are replaced. */
function modesIn(dataDir: string): string[] {
  const names = readdirSync(dataDir, { recursive: true, encoding: "utf8" })
  return ["", ...names]
    .map((name) => {
      const mode = (lstatSync(join(dataDir, name)).mode & 0o777).toString(8)
      return `${mode} /${name
        .replace(/sb_[a-z0-9]+/, "SANDBOX")
        .replace(/\d{8}T\d{6}Z/, "TIME")
        .replace(/[0-9a-f]{16}(-[0-9a-f]{8})?/g, "HASH")}`
    })
    .sort()
}
