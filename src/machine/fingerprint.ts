/**
 * Fingerprint of everything a saved machine state depends on. Our way of saving bypasses QEMU's own check, so a
 * state is loaded only into a machine with an identical fingerprint; otherwise the machine boots from its disk.
 */

import { statSync } from "node:fs"
import { cpus } from "node:os"
import { AppError } from "@bhatti/contract/errors"
import { kernelArgumentsOf, type MachineShape, qemuArguments, type Topology } from "./command-line.ts"

export type QemuBuild = {
  binary: string
  version: string
  /** Its version as its packager gives it, such as "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)". */
  name: string
  /** Part of every fingerprint. */
  identity: string
}

/** The QEMU on this host. */
export function findQemu(program = "qemu-system-x86_64"): QemuBuild {
  const binary = Bun.which(program, { PATH: "/usr/local/bin:/usr/bin:/bin" })
  if (!binary) {
    throw new AppError("unavailable", "QEMU is not installed", {
      hint: "sudo apt-get install qemu-system-x86 qemu-utils",
      retryable: false,
    })
  }
  const result = Bun.spawnSync([binary, "--version"], { timeout: 10_000 })
  const version = /version (\S+)(?: \((.*)\))?/.exec(result.stdout.toString())
  if (result.exitCode !== 0 || !version) {
    throw new AppError("unavailable", `${binary} does not run`, {
      hint: `try: ${binary} --version`,
      retryable: false,
    })
  }
  const [text, number = "", packaged] = version
  const name = packaged === undefined ? number : `${number} (${packaged})`
  return { binary, version: number, name, identity: `${text} ${stampOf(binary)}` }
}

/** Returns whether the program is still the one that was found. */
export function isUnchanged({ binary, identity }: QemuBuild): boolean {
  return identity.endsWith(` ${stampOf(binary)}`)
}

function stampOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false })
  return found === undefined ? "missing" : `${found.size} ${found.mtimeMs}`
}

/**
 * Identifies the QEMU, the machine shape and, under KVM, the CPU that a saved device state fits. 16 hexadecimal
 * digits.
 */
export function stateFingerprint(qemu: QemuBuild, shape: MachineShape, topology: Topology): string {
  return digest({
    qemu: qemu.identity,
    shape,
    arguments: qemuArguments(shape, "clone", "", { topology }),
    // Under KVM the guest sees the host's CPU; under emulation the model is QEMU's.
    hostCpu: shape.accelerator === "kvm" ? cpus()[0]?.model : null,
  })
}

/** Identifies a template: the state it fits, and what was booted in it. 16 hexadecimal digits. */
export function templateFingerprint(options: {
  qemu: QemuBuild
  shape: MachineShape
  kernelHash: string
  /** If there is none, it is omitted and the topology is 2. */
  kitHash?: string | undefined
  imageHash: string
  /** Omitted from the digest if there is none, so that templates of a host without one stay valid. */
  authority?: string | undefined
  /** Commands that run in it, and whose they are. Omitted likewise. */
  programs?: unknown
}): string {
  const { qemu, shape, kernelHash, kitHash, imageHash, authority, programs } = options
  return digest({
    state: stateFingerprint(qemu, shape, kitHash === undefined ? 2 : 3),
    kernelHash,
    kitHash,
    imageHash,
    authority,
    programs,
    kernelArguments: kernelArgumentsOf("template", shape.accelerator),
  })
}

function digest(value: unknown): string {
  return new Bun.CryptoHasher("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 16)
}
