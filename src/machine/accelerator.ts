/**
 * Decides which accelerator machines use. `/dev/kvm` can exist, open and create machines and still hang every
 * ordinary kernel, so KVM counts as usable only after a guest has booted under it. The answer holds for one boot of
 * the host.
 */

import { statSync } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import { parseJson } from "../lib/parse-json.ts"
import { hostBootId } from "../lib/process-identity.ts"
import type { Cgroups } from "./cgroups.ts"
import { type Accelerator, probeMemoryMib } from "./command-line.ts"
import { probeBytesMax } from "./file-bounds.ts"
import type { QemuBuild } from "./fingerprint.ts"
import type { Jail } from "./jail.ts"
import { deviceIdentity, deviceProblem, kvmAccess, kvmDevice } from "./kvm-device.ts"
import { probeKvm } from "./kvm-probe.ts"
import type { Confinement } from "./process.ts"

export type AcceleratorReport = { accelerator: Accelerator; reason: string }

const groupName = "kvm-probe"

type ProbeInput = {
  wanted: "auto" | "kvm" | "tcg"
  /** Set by `require_kvm`: the daemon does not serve without KVM. */
  isKvmRequired: boolean
  qemu: QemuBuild
  kernel: { hash: string; vmlinux: string; initramfs: string }
  /** Throws unless the kernel is intact: a damaged kernel must not be mistaken for broken KVM. */
  checkKernel: () => Promise<unknown>
  dataDir: string
  jail: Jail
  level: Confinement["level"]
  /** User id of machines without a sandbox. */
  uid: number | undefined
  cgroups: Cgroups
  /** How long a guest may stay silent. */
  silenceMaxSec: number
  device?: string
}

export async function chooseAccelerator(input: ProbeInput): Promise<AcceleratorReport> {
  if (input.wanted === "tcg") return { accelerator: "tcg", reason: "chosen in the configuration" }
  const { problem, tried } = await findProblem(input)
  if (problem === undefined) return { accelerator: "kvm", reason: `a guest boots under KVM${tried}` }
  if (input.wanted === "auto" && !input.isKvmRequired) return { accelerator: "tcg", reason: problem }
  const why = input.isKvmRequired
    ? "config.yaml says require_kvm: true, so nothing is served without"
    : "or accel: tcg in config.yaml"
  throw new AppError("unavailable", `KVM is not usable: ${problem}${tried}`, {
    hint: `sudo bhatti doctor says more, sudo bhatti init --probe tries again; use a host with working KVM; ${why}`,
    retryable: false,
  })
}

/** Tells, without a probe, whether machines on this host run or would run in software emulation. */
export async function isEmulated(options: {
  wanted: ProbeInput["wanted"]
  dataDir: string
}): Promise<boolean> {
  if (options.wanted === "tcg" || deviceProblem() !== undefined) return true
  const memory = await readProbe(options)
  return memory?.bootId === hostBootId && memory.problem !== null
}

/** `tried` describes how the problem was found and is appended to it; empty if no attempt was necessary. */
async function findProblem(input: ProbeInput): Promise<{ problem: string | undefined; tried: string }> {
  const device = deviceProblem(input.device)
  if (device !== undefined) return { problem: device, tried: "" }
  const remembered = await recall(input)
  if (remembered) return { problem: remembered.problem ?? undefined, tried: inWords(remembered, "earlier") }
  await input.checkKernel()
  const { problem, ms } = await tryKvm(input)
  const found = { problem: problem ?? null, ms }
  await remember(input, found)
  return { problem, tried: inWords(found, "just now") }
}

function inWords({ ms }: { ms: number }, when: "just now" | "earlier"): string {
  return `; tried ${when} as machines are started, ${(ms / 1000).toFixed(1)} s`
}

async function tryKvm(input: ProbeInput): Promise<{ problem: string | undefined; ms: number }> {
  const { uid, level, jail, qemu, kernel, cgroups } = input
  const { devices, ...access } = kvmAccess({ uid, level }, statSync(input.device ?? kvmDevice))
  const shape = { cpus: 1, memoryMib: probeMemoryMib, accelerator: "kvm", network: "user" } as const
  try {
    return await probeKvm({
      binary: qemu.binary,
      kernel,
      confinement: {
        ...access,
        devices: ["/dev/null", ...devices],
        ...{ jail, level, uid },
        cgroup: cgroups.make(groupName, shape),
        fileBytesMax: probeBytesMax,
      },
      directory: join(input.dataDir, "jail"),
      silenceMaxMs: input.silenceMaxSec * 1000,
    })
  } finally {
    cgroups.remove(groupName)
  }
}

const ProbeResult = z.object({
  bootId: z.string(),
  /** Everything about the host and the configuration that the answer depends on. */
  circumstances: z.string(),
  problem: z.string().nullable(),
  ms: z.number(),
})
export type ProbeResult = z.infer<typeof ProbeResult>

function memoryPath({ dataDir }: { dataDir: string }): string {
  return join(dataDir, "kvm-probe.json")
}

/** Makes the next daemon probe KVM again. */
export async function forgetProbe(options: { dataDir: string }): Promise<void> {
  await rm(memoryPath(options), { force: true })
}

export async function readProbe(options: { dataDir: string }): Promise<ProbeResult | undefined> {
  const file = Bun.file(memoryPath(options))
  if (!(await file.exists())) return undefined
  // The file was not synced, so a crash of the host may have left it empty.
  const parsed = ProbeResult.safeParse(parseJson(await file.text()))
  return parsed.success ? parsed.data : undefined
}

async function recall(input: ProbeInput): Promise<ProbeResult | undefined> {
  const memory = await readProbe(input)
  const isFresh = memory?.bootId === hostBootId && memory.circumstances === circumstancesOf(input)
  return isFresh ? memory : undefined
}

function circumstancesOf({ qemu, kernel, jail, level, uid, silenceMaxSec, device }: ProbeInput): string {
  const facts = [
    qemu.identity,
    kernel.hash,
    jail.root,
    level,
    uid ?? "own",
    silenceMaxSec,
    deviceIdentity(device),
  ]
  return facts.join("; ")
}

async function remember(input: ProbeInput, found: Pick<ProbeResult, "problem" | "ms">): Promise<void> {
  const memory: ProbeResult = { bootId: hostBootId, circumstances: circumstancesOf(input), ...found }
  const path = memoryPath(input)
  await Bun.write(`${path}.tmp`, JSON.stringify(memory))
  await rename(`${path}.tmp`, path)
}
