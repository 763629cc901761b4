/** Checks what machines need of the host: KVM, QEMU, memory files, control groups, and what confines QEMU. */

import { closeSync } from "node:fs"
import { release } from "node:os"
import type { Config } from "@bhatti/contract/config"
import { trust } from "@bhatti/contract/trust"
import { readIfReadable } from "../lib/missing-files.ts"
import { createMemoryFile } from "../lib/posix.ts"
import {
  type Check,
  checkProgram,
  deviceState,
  fail,
  findProgram,
  ok,
  succeeds,
  warn,
} from "../lib/preflight.ts"
import { hostBootId } from "../lib/process-identity.ts"
import { readProbe } from "./accelerator.ts"
import { controllers } from "./cgroups.ts"
import { kvmDevice } from "./kvm-device.ts"
import type { OtherUser } from "./user-ids.ts"

export type MachineFacts = Awaited<ReturnType<typeof lookAtMachines>>

/** `config` is undefined if it cannot be read, `isOfRoot` says whether the daemon runs as root. */
export type Circumstances = { config: Config | undefined; isRoot: boolean; isOfRoot: boolean }

const oldestQemu = [7, 2] as const

export async function lookAtMachines(options: { dataDir: string; isRoot: boolean }) {
  const asUser = options.isRoot ? [] : ["--user", "--map-root-user"]
  const kinds = ["--mount", "--pid", "--fork", "--ipc", "--uts", "--net"]
  return {
    kvm: deviceState(kvmDevice),
    /** The result of the daemon's KVM test, which booted a guest under KVM. */
    probe: await readProbe(options),
    qemu: findProgram("qemu-system-x86_64"),
    qemuImg: findProgram("qemu-img"),
    release: release(),
    memfd: hasMemoryFiles(),
    /** True if this user may create all the namespaces that confine QEMU. */
    namespaces: succeeds("unshare", ...asUser, ...kinds, "true"),
    /** Controllers of cgroup v2; undefined if it is not mounted. */
    controllers: readIfReadable("/sys/fs/cgroup/cgroup.controllers")?.trim().split(/\s+/),
  }
}

export function machineChecks(facts: MachineFacts, circumstances: Circumstances): Check[] {
  return [
    checkKvm(facts, circumstances),
    checkQemu(facts),
    checkProgram("qemu-img", facts.qemuImg, "qemu-utils"),
    facts.memfd
      ? ok("kernel", `${facts.release}, with memfd`)
      : fail("kernel", `${facts.release} has no memfd`, "use Linux 5.10 or later"),
    checkControllers(facts.controllers),
    ...checkConfinement(facts, circumstances),
  ]
}

export function checkUserIds([other]: readonly OtherUser[]): Check {
  return other === undefined
    ? ok("users", "no other user has the user ids of machines")
    : warn(
        "users",
        `${other.name} has user ids of machines too (${other.file}), and with them power over machines`,
        "another uid_base in config.yaml; stop all sandboxes before the daemon is restarted with it",
      )
}

function hasMemoryFiles(): boolean {
  try {
    closeSync(createMemoryFile({ name: "bhatti-doctor", bytes: 4096 }))
    return true
  } catch (error) {
    if (error instanceof Error) return false
    throw error
  }
}

function checkKvm({ kvm, probe }: MachineFacts, { config, isRoot }: Circumstances): Check {
  const isNeeded = config !== undefined && (config.accel === "kvm" || config.require_kvm)
  const slow = isNeeded ? "the daemon does not serve" : trust.emulation
  const trouble = (text: string, fix: string) => (isNeeded ? fail : warn)("kvm", `${text}; ${slow}`, fix)
  if (config?.accel === "tcg")
    return warn("kvm", `config.yaml says accel: tcg; ${slow}`, "accel: auto in config.yaml")
  if (kvm === "missing")
    return trouble(
      "/dev/kvm is missing",
      "switch virtualisation on in the firmware, or use a host with nested virtualisation; then: sudo modprobe kvm_intel (or kvm_amd)",
    )
  if (kvm === "closed" && isRoot)
    return trouble("/dev/kvm cannot be opened", "sudo modprobe kvm_intel (or kvm_amd)")
  if (kvm === "closed")
    return warn("kvm", "/dev/kvm is not open to you; the daemon may open it", "sudo bhatti doctor")
  if (probe?.bootId !== hostBootId) return ok("kvm", "/dev/kvm opens; the daemon tries it when it starts")
  if (probe.problem === null) return ok("kvm", "a guest boots under KVM, started as machines are")
  return trouble(
    `no guest boots under KVM: ${probe.problem}`,
    "a slow host needs more kvm_probe_seconds in config.yaml; sudo bhatti init --probe and a restart of the daemon try again; where nested virtualisation is broken, another host helps",
  )
}

function checkQemu({ qemu }: MachineFacts): Check {
  const area = "qemu-system-x86_64"
  const [major, minor = 0] = qemu?.version?.split(".").map(Number) ?? []
  const isOld =
    major !== undefined && (major < oldestQemu[0] || (major === oldestQemu[0] && minor < oldestQemu[1]))
  return isOld
    ? fail(area, `QEMU ${qemu?.version} is too old`, `install ${oldestQemu.join(".")} or later`)
    : checkProgram(area, qemu, "qemu-system-x86")
}

/** Checks the controllers that limit a machine's share of the host, beyond the size that QEMU gives the guest. */
function checkControllers(offered: string[] | undefined): Check {
  const area = "cgroups"
  const fix = "boot with systemd.unified_cgroup_hierarchy=1, or give this container the controllers"
  const missing = [...controllers.needed, controllers.io].filter((one) => !offered?.includes(one))
  if (missing.length === 0)
    return ok(area, "machines are held to processor time, memory, threads and disk bandwidth")
  if (missing.join() === controllers.io)
    return warn(
      area,
      "cgroup v2 lacks io; nothing limits a machine's disk bandwidth, only its processor time, memory and threads",
      fix,
    )
  const why = offered === undefined ? "cgroup v2 is not mounted" : `cgroup v2 lacks ${missing.join(", ")}`
  const unlimited = "QEMU's own memory, a machine's processor time, threads and disk bandwidth"
  return warn(area, `${why}; nothing limits ${unlimited}`, fix)
}

/** Checks the features that protect the host from a QEMU that a guest has taken over. */
function checkConfinement(
  { namespaces }: MachineFacts,
  { config, isRoot, isOfRoot }: Circumstances,
): Check[] {
  const area = "confinement"
  const notRoot = isOfRoot ? [] : [warn(area, trust.notRoot, "run the daemon as root")]
  if (config?.confinement === "reduced") {
    const fix = namespaces ? "confinement: full in config.yaml" : "a host that allows namespaces"
    return [warn(area, trust.reduced, fix), ...notRoot]
  }
  if (namespaces) return [ok(area, "each QEMU gets namespaces and a root directory of its own"), ...notRoot]
  return [
    fail(
      area,
      `this host refuses ${isRoot ? "namespaces" : "user namespaces"}; the daemon does not serve`,
      `${isRoot ? "run outside of a container" : "let users make user namespaces (sysctl)"}, or accept less: confinement: reduced in config.yaml`,
    ),
    ...notRoot,
  ]
}
