/**
 * How machines get at `/dev/kvm`, and that QEMU runs a guest under it where machines run: in the jail, as a machine's
 * user. The guest is eleven bytes that count, which run even where an ordinary kernel hangs.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import launcher from "../../dist/jail" with { type: "file" }
import { until } from "../../test/support/installation.ts"
import { createMemoryFile } from "../lib/posix.ts"
import type { ProcessIdentity } from "../lib/process-identity.ts"
import { qemuArguments, savedStateFile } from "./command-line.ts"
import { findQemu } from "./fingerprint.ts"
import { prepareLauncher } from "./jail.ts"
import { KeptQemus } from "./kept-qemu.ts"
import { deviceProblem, kvmAccess } from "./kvm-device.ts"
import { type Confinement, killProcess, spawnQemu } from "./process.ts"
import { Qmp } from "./qmp.ts"
import { makeSharedMemory } from "./shared-memory.ts"
import { agentSocket, listenSockets, qmpSocket } from "./sockets.ts"

const uid = 690_000 + (process.pid % 5000)

test.each([
  ["by its group", 0o660, 105, { groups: [105], devices: ["/dev/kvm"], ownDevices: [] }],
  ["as everybody", 0o666, 0, { groups: [], devices: ["/dev/kvm"], ownDevices: [] }],
  [
    "with a node of its own, not as root's group",
    0o660,
    0,
    { groups: [], devices: [], ownDevices: ["/dev/kvm"] },
  ],
  ["with a node of its own", 0o600, 105, { groups: [], devices: [], ownDevices: ["/dev/kvm"] }],
])("a machine in a jail opens /dev/kvm %s where its mode is %o of group %i", (_how, mode, gid, access) => {
  expect(kvmAccess({ uid, level: "full" }, { mode, gid })).toEqual(access)
})

test("without root, and without a jail, there is the host's node only", () => {
  const shown = { groups: [], devices: ["/dev/kvm"], ownDevices: [] }
  expect(kvmAccess({ uid: undefined, level: "full" }, { mode: 0o600, gid: 0 })).toEqual(shown)
  expect(kvmAccess({ uid, level: "reduced" }, { mode: 0o600, gid: 0 })).toEqual(shown)
})

const problem = process.getuid?.() === 0 ? deviceProblem() : "only root starts machines as other users"
if (problem !== undefined) console.log(`skipped: the counting guest under KVM: ${problem}`)

const romBytes = 65_536
/** Where a processor begins: 16 bytes before the end. */
const entry = romBytes - 16
/** In memory, since a clone's ROM is empty: only what boots reads it. */
const codeAt = 0x7c00
const jumpToCode = [0xea, 0x00, 0x7c, 0x00, 0x00]
// xor ax,ax; mov ds,ax; inc dword [0x7000]; jmp to the inc
const counting = [0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x00, 0x70, 0xeb, 0xf9]

describe.skipIf(problem !== undefined)(
  "a guest that counts, under KVM in the jail as a machine's user",
  () => {
    let home: string
    let memory: number
    let confinement: Confinement
    const running: ProcessIdentity[] = []
    beforeAll(async () => {
      home = mkdtempSync("/tmp/bhatti-kvm-")
      const rom = new Uint8Array(romBytes)
      rom.set(jumpToCode, entry)
      writeFileSync(join(home, "rom"), rom, { mode: 0o644 })
      writeFileSync(join(home, "base"), new Uint8Array(1 << 20))
      for (const name of ["template", "overlay"]) {
        const made = Bun.spawnSync(["qemu-img", "create", "-q", "-f", "qcow2", join(home, name), "1M"])
        expect(made.exitCode).toBe(0)
      }
      memory = createMemoryFile({ name: "bhatti-count", bytes: shape.memoryMib << 20 })
      writeSync(memory, new Uint8Array(counting), 0, counting.length, codeAt)
      const qemus = await KeptQemus.open({ dataDir: home, qemu, forbidden: [], isOutside: false })
      const jail = {
        launcher: await prepareLauncher({ dataDir: home, built: launcher }),
        root: qemus.present.root,
      }
      const { devices, ...access } = kvmAccess({ uid, level: "full" })
      confinement = {
        ...{ jail, level: "full", uid, cgroup: undefined, fileBytesMax: 2 ** 24 },
        ...access,
        devices: ["/dev/null", ...devices],
      }
    })
    afterAll(async () => {
      for (const process of running) await killProcess(process, { deadlineMs: 10_000 })
      closeSync(memory)
      rmSync(home, { recursive: true, force: true })
    })

    const qemu = findQemu()
    const shape = { cpus: 1, memoryMib: 16, accelerator: "kvm", network: "user" } as const

    /** The same start as of a sandbox's machine but for the ROM in place of a kernel. */
    async function start(role: "template" | "clone"): Promise<Qmp> {
      const directory = mkdtempSync(join(home, "m-"))
      using sockets = listenSockets(directory)
      const open = (name: string, flags: string) => openSync(join(home, name), flags, 0o600)
      const rom = open("rom", "r")
      const state = role === "clone" ? { state: open("state-of-template", "r") } : {}
      const files = {
        ...{ memory, qmpSocket: sockets.qmp, agentSocket: sockets.agent, kernel: rom, ...state },
        ...{
          overlayDisk: open("overlay", "r+"),
          templateDisk: open("template", "r"),
          baseDisk: open("base", "r"),
          kitDisk: open("base", "r"),
        },
        ...{ saved: open(`state-of-${role}`, "w"), shared: makeSharedMemory() },
      }
      const all = qemuArguments(shape, role, "counting", { topology: 3 })
      const withoutKernel = all.includes("-kernel") ? all.slice(0, all.indexOf("-kernel")) : all
      // A host that is itself a machine may offer registers that it then refuses; the counting guest needs none of
      // them.
      withoutKernel[withoutKernel.indexOf("-cpu") + 1] = "host,-arch-capabilities"
      if (role === "clone") Bun.connect({ unix: agentSocket(directory), socket: { data() {} } })
      const output = open("words", "a")
      const process = await spawnQemu({
        binary: qemu.binary,
        arguments: [...withoutKernel, "-bios", "/proc/self/fd/11"],
        files,
        confinement,
        output,
      })
      running.push(process)
      closeSync(output)
      for (const [name, fd] of Object.entries(files))
        if (!["memory", "qmpSocket", "agentSocket"].includes(name)) closeSync(fd)
      sockets[Symbol.dispose]()
      return Qmp.open({ socketPath: qmpSocket(directory), deadlineMs: 10_000 })
    }

    const deadline = { deadlineMs: 10_000 }
    async function count(machine: Qmp): Promise<number> {
      const words = await machine.command(
        "human-monitor-command",
        { "command-line": "xp /1wd 0x7000" },
        deadline,
      )
      return Number(/:\s+(\d+)/.exec(String(words))?.[1])
    }

    test("counts, is stopped and goes on, and goes on as a clone of what was saved of it", async () => {
      const first = await start("template")
      await until("it counts", async () => (await count(first)) > 0)
      await first.command("stop", {}, deadline)
      const stopped = await count(first)
      expect(await count(first)).toBe(stopped)
      await first.command("cont", {}, deadline)
      await until("it goes on", async () => (await count(first)) > stopped)
      await first.command("stop", {}, deadline)
      const saved = await count(first)
      await first.command("xen-save-devices-state", { filename: savedStateFile, live: false }, deadline)
      first.close()
      for (const process of running.splice(0)) await killProcess(process, deadline)

      const second = await start("clone")
      await until("the clone counts on", async () => (await count(second)) > saved)
      second.close()
    }, 60_000)
  },
)
