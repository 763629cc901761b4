/** Which accelerator is chosen, with programs that behave as QEMU under a good, a missing and a hanging KVM. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "../contract/errors.ts"
import { chooseAccelerator } from "./accelerator.ts"

let directory: string
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-kvm-")
  writeFileSync(join(directory, "kvm"), "")
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const good = "echo starting; echo bhatti-probe-ok; exec sleep 1000"
const remembered = () => join(directory, "kvm-probe.json")

function choose(
  script: string,
  options: { wanted?: "auto" | "kvm"; isKvmRequired?: boolean; device?: string; identity?: string } = {},
) {
  const binary = join(directory, "qemu")
  writeFileSync(binary, `#!/bin/sh\necho run >>${directory}/runs\necho $$ >${directory}/pid\n${script}\n`, {
    mode: 0o700,
  })
  return chooseAccelerator({
    wanted: options.wanted ?? "auto",
    isKvmRequired: options.isKvmRequired ?? false,
    qemu: { binary, version: "7.2", identity: options.identity ?? "a QEMU" },
    kernel: { hash: "kernel", vmlinux: "/vmlinux", initramfs: "/initramfs" },
    dataDir: directory,
    device: join(directory, options.device ?? "kvm"),
  })
}

const runs = () =>
  existsSync(join(directory, "runs"))
    ? readFileSync(join(directory, "runs"), "utf8").split("\n").length - 1
    : 0

test("KVM is used when a guest boots under it", async () => {
  expect(await choose(good)).toEqual({ accelerator: "kvm", reason: "a guest boots under KVM" })
})

test.each([
  ["is missing", good, { device: "none" }, "/dev/kvm is missing"],
  ["cannot be opened", good, { device: "." }, "/dev/kvm cannot be opened"],
  ["is refused by QEMU", "echo first >&2; echo no such thing >&2; exit 1", {}, "QEMU says: no such thing"],
  ["hangs", "echo starting; exec sleep 1000", {}, "a guest under it did not start within 5 s"],
])(
  "when it %s it is software emulation, within seconds and with the reason, unless KVM is needed",
  async (_how, script, options, reason) => {
    expect(await choose(script, options)).toEqual({ accelerator: "tcg", reason })
    for (const need of [{ wanted: "kvm" as const }, { isKvmRequired: true }]) {
      const refused = await choose(script, { ...options, ...need }).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(AppError)
      expect(refused).toMatchObject({ message: `KVM is not usable: ${reason}`, retryable: false })
    }
  },
  20_000,
)

test("a program that hangs is ended", async () => {
  await choose("exec sleep 1000")
  const pid = Number(readFileSync(join(directory, "pid"), "utf8"))
  expect(() => process.kill(pid, 0)).toThrow()
}, 20_000)

test("what was found holds for the same QEMU, and is found out anew for another", async () => {
  await choose(good)
  await choose("exit 1")
  expect(runs()).toBe(1)
  expect((await choose("exit 1", { identity: "another" })).accelerator).toBe("tcg")
  expect(runs()).toBe(2)
})

test.each(["", "{", "null", "[]", '{"bootId": 1}'])(
  "a memory of it that a crash or somebody has left as %p is none",
  async (text) => {
    writeFileSync(remembered(), text)
    expect((await choose(good)).accelerator).toBe("kvm")
    expect(JSON.parse(readFileSync(remembered(), "utf8"))).toMatchObject({ problem: null })
  },
)
