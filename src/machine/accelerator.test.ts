/** Which accelerator is chosen, with programs that behave as QEMU under a good, a missing and a hanging KVM. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import launcher from "../../dist/jail" with { type: "file" }
import { startTicks } from "../lib/process-identity.ts"
import { chooseAccelerator, forgetProbe } from "./accelerator.ts"
import { Cgroups } from "./cgroups.ts"

let directory: string
let started: string
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-kvm-")
  started = join(directory, "launcher")
  mkdirSync(join(directory, "jail"))
  for (const name of ["kvm", "vmlinux", "initramfs"]) writeFileSync(join(directory, name), "")
  writeFileSync(started, readFileSync(launcher), { mode: 0o700 })
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const good = "echo starting; echo bhatti-probe-ok; exec sleep 1000"
const remembered = () => join(directory, "kvm-probe.json")

type Choice = {
  wanted?: "auto" | "kvm"
  isKvmRequired?: boolean
  device?: string
  identity?: string
  kernel?: string
  silenceMaxSec?: number
}

function choose(script: string, options: Choice = {}) {
  const binary = join(directory, "qemu")
  writeFileSync(binary, `#!/bin/sh\necho run >>${directory}/runs\necho $$ >${directory}/pid\n${script}\n`, {
    mode: 0o700,
  })
  return chooseAccelerator({
    wanted: options.wanted ?? "auto",
    isKvmRequired: options.isKvmRequired ?? false,
    qemu: { binary, name: "7.2.22", version: "7.2", identity: options.identity ?? "a QEMU" },
    kernel: {
      hash: options.kernel ?? "kernel",
      vmlinux: join(directory, "vmlinux"),
      initramfs: join(directory, "initramfs"),
    },
    checkKernel: async () => {
      if (options.kernel === "damaged") throw new AppError("not_found", "the file vmlinux is damaged")
    },
    dataDir: directory,
    // The programs are the host's, so there is no root directory that they could be started in.
    jail: { launcher: started, root: "/" },
    level: "reduced",
    uid: undefined,
    cgroups: Cgroups.open({ mountPoint: "/no-such-directory", dataDir: directory }),
    silenceMaxSec: options.silenceMaxSec ?? 1,
    device: join(directory, options.device ?? "kvm"),
  })
}

const runs = () =>
  existsSync(join(directory, "runs"))
    ? readFileSync(join(directory, "runs"), "utf8").split("\n").length - 1
    : 0
const pid = () => Number(readFileSync(join(directory, "pid"), "utf8"))

test("KVM is used when a guest boots under it, and how it was tried is told", async () => {
  const found = await choose(good)
  expect(found).toEqual({ accelerator: "kvm", reason: expect.any(String) })
  expect(found.reason).toMatch(/^a guest boots under KVM; tried just now as machines are started, \d+\.\d s$/)
  expect((await choose(good)).reason).toContain("; tried earlier as machines are started, ")
})

test.each([
  ["is missing", good, { device: "none" }, /^\/dev\/kvm is missing$/],
  ["cannot be opened", good, { device: "." }, /^\/dev\/kvm cannot be opened$/],
  ["is refused by QEMU", "echo first >&2; echo no such thing >&2; exit 1", {}, /^QEMU says: no such thing$/],
  ["ends without a word", "exit 1", {}, /^QEMU says: nothing, and ends$/],
  [
    "hangs",
    "echo starting; exec sleep 1000",
    {},
    /^a guest under it did not start: 1\.\d s of silence, 1\.\d s in all, kvm_probe_seconds is 1; last words: starting$/,
  ],
])(
  "when it %s it is software emulation, within seconds and with the reason, unless KVM is needed",
  async (_how, script, options, reason) => {
    expect(await choose(script, options)).toEqual({
      accelerator: "tcg",
      reason: expect.stringMatching(reason) as string,
    })
    for (const need of [{ wanted: "kvm" as const }, { isKvmRequired: true }]) {
      const refused = await choose(script, { ...options, ...need }).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(AppError)
      const { message, hint } = refused as AppError
      expect(message).toStartWith("KVM is not usable: ")
      expect(message.slice("KVM is not usable: ".length).replace(/; tried earlier .*/, "")).toMatch(reason)
      expect(hint).toContain("bhatti init --probe")
    }
  },
  20_000,
)

test("a damaged kernel is told as that, and is no answer about KVM", async () => {
  const refused = await choose("exit 1", { kernel: "damaged" }).catch((error: unknown) => error)
  expect((refused as AppError).message).toBe("the file vmlinux is damaged")
  expect(runs()).toBe(0)
  expect((await choose(good)).accelerator).toBe("kvm")
})

test("a guest that takes long but says something goes on being waited for", async () => {
  const slow = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done; echo bhatti-probe-ok; exec sleep 1000"
  expect((await choose(slow)).accelerator).toBe("kvm")
}, 20_000)

test("a program that hangs is ended", async () => {
  await choose("exec sleep 1000")
  expect(startTicks(pid())).toBeUndefined()
}, 20_000)

test("one that a killed daemon left is ended by the next probe", async () => {
  const left = Bun.spawn(["sleep", "1000"])
  const stat = readFileSync(`/proc/${left.pid}/stat`, "utf8")
  const startTicks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19])
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  const path = join(directory, "jail", "kvm-probe.pid")
  writeFileSync(path, JSON.stringify({ pid: left.pid, startTicks, bootId }))
  await choose(good)
  expect(await left.exited).not.toBe(0)
  expect(existsSync(path)).toBe(false)
})

test("what was found holds until QEMU, the kernel, the device or the patience is another, or it is asked for anew", async () => {
  await choose(good)
  await choose("exit 1")
  expect(runs()).toBe(1)
  expect((await choose("exit 1", { identity: "another" })).accelerator).toBe("tcg")
  expect((await choose("exit 1", { kernel: "another" })).accelerator).toBe("tcg")
  rmSync(join(directory, "kvm"))
  writeFileSync(join(directory, "kvm"), "", { mode: 0o600 })
  expect((await choose("exit 1")).accelerator).toBe("tcg")
  expect((await choose(good, { silenceMaxSec: 2 })).accelerator).toBe("kvm")
  expect(runs()).toBe(5)
  await forgetProbe({ dataDir: directory })
  expect((await choose("exit 1", { silenceMaxSec: 2 })).accelerator).toBe("tcg")
  expect(runs()).toBe(6)
})

test.each(["", "{", "null", "[]", '{"bootId": 1}'])(
  "a memory of it that a crash or somebody has left as %p is none",
  async (text) => {
    writeFileSync(remembered(), text)
    expect((await choose(good)).accelerator).toBe("kvm")
    expect(JSON.parse(readFileSync(remembered(), "utf8"))).toMatchObject({ problem: null })
  },
)
