/**
 * Machines that are forked from a zygote, on real machines: they work like clones of the same template, are apart from
 * each other and from the zygote, and save as little.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { isAlive } from "../../src/lib/process-identity.ts"
import { openSharedMemory } from "../../src/machine/shared-memory.ts"
import { checkSeparation } from "../../src/machine/zygote-trial.ts"
import type { Zygote } from "../../src/machine/zygotes.ts"
import { ForkedMachines, personalise, run, type TestMachine } from "../support/forked-machines.ts"
import { type Installation, install, until } from "../support/installation.ts"

const isRoot = process.getuid?.() === 0
/** By hand more: FORKS=10000. */
const forkCount = Number(process.env["FORKS"] ?? 12)
const isLong = process.env["BHATTI_TEST_LONG"] === "1"

let own: Installation
let forks: ForkedMachines
let zygote: Zygote
beforeAll(async () => {
  if (!isRoot) return
  own = await install()
  expect((await own.bhatti(["create", "--name", "made-its-template"])).exitCode).toBe(0)
  forks = await ForkedMachines.open(own)
  zygote = await forks.makeZygote()
}, 600_000)
afterAll(async () => {
  await forks?.[Symbol.asyncDispose]()
  await own?.[Symbol.asyncDispose]()
}, 120_000)

/** Random numbers of the processor's instruction, which QEMU makes, and of the kernel. */
const randomNumbers = `
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("480fc7f0c3"))
rdrand = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(rdrand(), rdrand(), open("/proc/sys/kernel/random/uuid").read().strip())
`

describe.skipIf(!isRoot)("a machine that is forked", () => {
  let one: TestMachine
  let other: TestMachine

  test("answers its first command, as what it is, and its zygote passes the trial", async () => {
    await forks.zygotes.try(zygote, async (guest) => {
      await personalise(guest, "trial")
      expect(await run(guest, ["hostname"])).toBe("trial\n")
    })
    expect(readdirSync(zygote.directory).filter((name) => name.startsWith("trial"))).toEqual([])
    one = await forks.create(zygote)
    other = await forks.create(zygote)
    expect(forks.unforked).toEqual([])
    for (const { guest, id } of [one, other])
      expect(await run(guest, ["hostname"])).toBe(`${id.replace("_", "-")}\n`)
    expect(isAlive(zygote.process)).toBe(true)
  })

  test("shares no open file that can be written to, and no memory, with its zygote or a sibling", () => {
    const pids = [one, other].map(({ machine }) => machine.process.pid)
    const [first = 0, second = 0] = pids
    checkSeparation(first, second)
    for (const pid of pids) checkSeparation(pid, zygote.process.pid)
    const shared = [one, other].map(({ machine }) => openSharedMemory(machine.process))
    expect(new Set(shared.map((fd) => statSync(`/proc/self/fd/${fd}`).ino)).size).toBe(2)
  })

  test("draws other random numbers than its sibling", async () => {
    const drawn = await Promise.all(
      [one, other].map(({ guest }) => run(guest, ["python3", "-c", randomNumbers])),
    )
    const all = drawn.flatMap((line) => line.trim().split(" "))
    expect(all.length).toBe(6)
    expect(new Set(all).size).toBe(6)
  })

  test("has the template's files and a disk of its own, which grows and keeps what was written", async () => {
    const files = "cd /usr/bin && sha256sum python3* bash env | sha256sum"
    const clone = await forks.create(undefined)
    expect(await run(one.guest, ["sh", "-c", files])).toBe(await run(clone.guest, ["sh", "-c", files]))
    await forks.end(clone)
    const write = "head -c 3000000 /dev/urandom > /workspace/data; sync; sha256sum < /workspace/data"
    const sum = await run(one.guest, ["sh", "-c", write])
    expect(await run(other.guest, ["sh", "-c", "ls /workspace"])).toBe("")
    await forks.machines.growDisk(one.machine, forks.template.diskMib + 512)
    const sectors = (forks.template.diskMib + 512) * 2048
    expect(await run(one.guest, ["cat", "/sys/block/vda/size"])).toBe(`${sectors}\n`)
    await run(one.guest, ["sudo", "sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"])
    expect(await run(one.guest, ["sh", "-c", "sha256sum < /workspace/data"])).toBe(sum)
    // Paused, since QEMU then writes its tables.
    await forks.machines.pause(one.machine)
    const file = { driver: "file", filename: join(one.directory, "disk.qcow2") }
    const disk = `json:${JSON.stringify({ driver: "qcow2", backing: null, file })}`
    const checked = Bun.spawnSync(["qemu-img", "check", "-U", disk])
    expect(`${checked.stdout}${checked.stderr}`).toContain("No errors were found")
    await forks.machines.resume(one.machine)
  })

  test("takes a further disk through its own monitor, and gives it back", async () => {
    const path = join(own.dataDir, "further.raw")
    writeFileSync(path, "of the further disk")
    truncateSync(path, 1024 * 1024)
    await forks.machines.plugDisk(one.machine, { id: "further", path, isReadOnly: true })
    const read =
      "for i in vda vdb vdc; do grep -qx further /sys/block/$i/serial && sudo head -c 19 /dev/$i; done"
    await until("the guest sees it", async () =>
      (await run(one.guest, ["sh", "-c", read])).includes("of the further disk"),
    )
    await forks.machines.unplugDisk(one.machine, "further")
  })

  test("goes on when packets arrive at its network device", async () => {
    const tap = `bht${other.id.slice(-8)}`
    Bun.spawnSync(["ip", "link", "set", "dev", tap, "up"])
    const received = () => Number(readFileSync(`/sys/class/net/${tap}/statistics/tx_packets`, "utf8"))
    const dropped = () => Number(readFileSync(`/sys/class/net/${tap}/statistics/tx_dropped`, "utf8"))
    const before = received()
    const script = `
import socket
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("${tap}", 0x0800))
for _ in range(5): link.send(b"\\xff" * 6 + bytes.fromhex("0200000000fe0800") + bytes(64))
`
    expect(Bun.spawnSync(["python3", "-c", script]).stderr.toString()).toBe("")
    await until("they have arrived", () => received() >= before + 5)
    expect(await run(other.guest, ["echo", "goes on"])).toBe("goes on\n")
    expect(dropped()).toBe(0)
  }, 30_000)

  test("is paused, resumed, and found by what it holds, like any other", async () => {
    await forks.machines.pause(one.machine)
    expect(await forks.machines.haltOf(one.machine)).toBe("paused")
    expect(await forks.machines.haltOf(other.machine)).toBe("none")
    await forks.machines.resume(one.machine)
    expect(await run(one.guest, ["echo", "on"])).toBe("on\n")
    expect(forks.machines.find(one.id)?.process).toEqual(one.machine.process)
    expect(forks.machines.find(other.id)?.process).toEqual(other.machine.process)
  })
})

describe.skipIf(!isRoot)("the saved memory of a machine that is forked", () => {
  const bytesOf = ({ directory }: TestMachine, name: string) => statSync(join(directory, name)).size

  test("is loaded by a clone of the template, and is hardly larger than a clone's", async () => {
    const [forked, cloned] = [await forks.create(zygote), await forks.create(undefined)]
    for (const made of [forked, cloned]) {
      await run(made.guest, ["sh", "-c", "echo kept > /workspace/kept; echo in-memory > /dev/shm/kept; sync"])
      await forks.machines.pause(made.machine)
      await forks.machines.saveSnapshot(made.machine)
      await forks.end(made)
      expect(await forks.machines.checkSnapshot(made.id, forks.template)).toMatchObject({ fits: true })
      const woken = await forks.wake(made)
      const read = ["cat", "/workspace/kept", "/dev/shm/kept"]
      expect(await run(woken.guest, read)).toBe("kept\nin-memory\n")
      await forks.end(woken)
    }
    const sizes = ["snapshot/memory", "snapshot/state", "disk.qcow2"].map((name) => ({
      name,
      ratio: bytesOf(forked, name) / bytesOf(cloned, name),
    }))
    expect(sizes.filter(({ ratio }) => ratio > 1.3)).toEqual([])
  })
})

describe.skipIf(!isRoot)("a zygote", () => {
  test("holds no more after many forks than after a few", async () => {
    const held = () => {
      const text = readFileSync(`/proc/${zygote.process.pid}/smaps_rollup`, "utf8")
      return {
        descriptors: readdirSync(`/proc/${zygote.process.pid}/fd`).length,
        threads: readdirSync(`/proc/${zygote.process.pid}/task`).length,
        mib: Math.round(Number(/^Rss: +(\d+)/m.exec(text)?.[1]) / 1024),
      }
    }
    const before = held()
    const failures = forks.unforked.length
    for (let count = 0; count < forkCount; count++) await forks.destroy(await forks.create(zygote))
    expect(forks.unforked.length).toBe(failures)
    const after = held()
    expect({ ...after, mib: 0 }).toEqual({ ...before, mib: 0 })
    expect(after.mib - before.mib).toBeLessThan(2)
  }, 3_600_000)

  test.skipIf(!isLong)("with two vCPUs: its machines have both, and they compute", async () => {
    expect((await own.bhatti(["create", "--name", "wide", "--cpus", "2"])).exitCode).toBe(0)
    await using wide = await ForkedMachines.open(own, { cpus: 2 })
    const made = await wide.create(await wide.makeZygote())
    expect(wide.unforked).toEqual([])
    const sum =
      "seq 200000 | sha256sum & seq 200000 | sha256sum & wait; nproc; grep -c ^processor /proc/cpuinfo"
    const [one, other, ...counts] = (await run(made.guest, ["sh", "-c", sum])).trim().split("\n")
    expect(one).toBe(other ?? "")
    expect(counts).toEqual(["2", "2"])
  })
})

describe.skipIf(!isRoot)("where no machine can be forked", () => {
  test("a zygote that has ended: the machine is cloned, with the template's empty disk", async () => {
    const ended = await forks.makeZygote()
    process.kill(ended.process.pid, "SIGKILL")
    await until("it is gone", () => !isAlive(ended.process))
    const before = forks.unforked.length
    const made = await forks.create(ended)
    expect(forks.unforked.length).toBe(before + 1)
    expect(await run(made.guest, ["echo", "cloned"])).toBe("cloned\n")
  })

  test("a zygote that runs is not forked, and says so", async () => {
    const { zygote: running, guest } = await forks.zygotes.start(forks.template)
    guest.close()
    const before = forks.unforked.length
    await forks.create(running)
    expect(`${forks.unforked.at(-1)}`).toContain("the zygote is not stopped")
    expect(forks.unforked.length).toBe(before + 1)
    await forks.zygotes.end(running)
  })
})
