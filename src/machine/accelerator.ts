/**
 * Which accelerator machines use. `/dev/kvm` can exist, open and create machines and still hang every ordinary kernel,
 * so KVM counts as usable only after a guest has booted under it. The answer holds for one boot of the host.
 */

import { accessSync, closeSync, constants, openSync, statSync } from "node:fs"
import { rename } from "node:fs/promises"
import { join } from "node:path"
import { z } from "zod"
import { AppError } from "../contract/errors.ts"
import { parseJson } from "../lib/parse-json.ts"
import type { Accelerator } from "./command-line.ts"
import type { QemuBuild } from "./fingerprint.ts"
import { hostBootId } from "./process.ts"

export type AcceleratorReport = { accelerator: Accelerator; reason: string }

const probeDeadlineMs = 5000
/** What the agent prints when it was booted with `bhatti.probe`. */
const probeWords = "bhatti-probe-ok"

type ProbeInput = {
  wanted: "auto" | "kvm" | "tcg"
  /** By `require_kvm`: nothing is served without it. */
  isKvmRequired: boolean
  qemu: QemuBuild
  kernel: { hash: string; vmlinux: string; initramfs: string }
  dataDir: string
  device?: string
}

export async function chooseAccelerator(input: ProbeInput): Promise<AcceleratorReport> {
  if (input.wanted === "tcg") return { accelerator: "tcg", reason: "chosen in the configuration" }
  const problem = await kvmProblem(input)
  if (problem === undefined) return { accelerator: "kvm", reason: "a guest boots under KVM" }
  if (input.wanted === "auto" && !input.isKvmRequired) return { accelerator: "tcg", reason: problem }
  throw new AppError("unavailable", `KVM is not usable: ${problem}`, {
    hint: input.isKvmRequired
      ? "use a host with working KVM; config.yaml says require_kvm: true, so nothing is served without"
      : "use a host with working KVM, or accel: tcg in config.yaml",
    retryable: false,
  })
}

/** What is known without trying: whether machines on this host run, or would run, in software emulation. */
export async function isEmulated(options: {
  wanted: ProbeInput["wanted"]
  dataDir: string
}): Promise<boolean> {
  if (options.wanted === "tcg" || deviceProblem() !== undefined) return true
  const memory = await readMemory(options)
  return memory?.bootId === hostBootId && memory.problem !== null
}

async function kvmProblem(input: ProbeInput): Promise<string | undefined> {
  const device = deviceProblem(input.device)
  if (device !== undefined) return device
  const remembered = await recall(input)
  if (remembered) return remembered.problem ?? undefined
  const problem = await bootProbe(input)
  await remember(input, { problem: problem ?? null })
  return problem
}

function deviceProblem(path = "/dev/kvm"): string | undefined {
  try {
    statSync(path)
  } catch {
    return "/dev/kvm is missing"
  }
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    closeSync(openSync(path, "r+"))
    return undefined
  } catch {
    return "/dev/kvm cannot be opened"
  }
}

async function bootProbe({ qemu, kernel }: ProbeInput): Promise<string | undefined> {
  const child = Bun.spawn({
    cmd: [
      qemu.binary,
      ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "256M"],
      ...[
        "-machine",
        "q35,sata=off,smbus=off,usb=off,vmport=off,graphics=off",
        "-accel",
        "kvm",
        "-cpu",
        "host",
      ],
      ...["-kernel", kernel.vmlinux, "-initrd", kernel.initramfs],
      ...["-append", "console=ttyS0 quiet panic=-1 reboot=t bhatti.probe", "-serial", "stdio"],
    ],
    stdio: ["ignore", "pipe", "pipe"],
  })
  const timer = setTimeout(() => child.kill("SIGKILL"), probeDeadlineMs)
  try {
    let text = ""
    for await (const chunk of child.stdout) {
      text += Buffer.from(chunk).toString("latin1")
      if (text.includes(probeWords)) return undefined
    }
    const words = (await new Response(child.stderr).text()).trim().split("\n").at(-1) ?? ""
    return words === ""
      ? `a guest under it did not start within ${probeDeadlineMs / 1000} s`
      : `QEMU says: ${words}`
  } finally {
    clearTimeout(timer)
    child.kill("SIGKILL")
    await child.exited
  }
}

const Memory = z.object({
  bootId: z.string(),
  qemu: z.string(),
  kernel: z.string(),
  problem: z.string().nullable(),
})
type Memory = z.infer<typeof Memory>

function memoryPath({ dataDir }: { dataDir: string }): string {
  return join(dataDir, "kvm-probe.json")
}

async function readMemory(options: { dataDir: string }): Promise<Memory | undefined> {
  const file = Bun.file(memoryPath(options))
  if (!(await file.exists())) return undefined
  // It was not synced, so a crash of the host may have left it empty.
  const parsed = Memory.safeParse(parseJson(await file.text()))
  return parsed.success ? parsed.data : undefined
}

async function recall(input: ProbeInput): Promise<Memory | undefined> {
  const memory = await readMemory(input)
  const isFresh =
    memory !== undefined &&
    memory.bootId === hostBootId &&
    memory.qemu === input.qemu.identity &&
    memory.kernel === input.kernel.hash
  return isFresh ? memory : undefined
}

async function remember(input: ProbeInput, { problem }: { problem: string | null }): Promise<void> {
  const memory: Memory = { bootId: hostBootId, qemu: input.qemu.identity, kernel: input.kernel.hash, problem }
  const path = memoryPath(input)
  await Bun.write(`${path}.tmp`, JSON.stringify(memory))
  await rename(`${path}.tmp`, path)
}
