/**
 * The doctor's judgement: facts in, one line each out. Uses no clock and no system call, so that every case can be
 * tested.
 */

import type { AppError } from "@bhatti/contract/errors"
import { trust } from "@bhatti/contract/trust"
import { sizeText } from "../words.ts"
import type { ConnectionFacts, HostFacts } from "./facts.ts"
import { checkShares } from "./host-shares.ts"

export type Check = {
  area: string
  status: "ok" | "warn" | "fail"
  text: string
  /** How to fix it, preferably a command. */
  fix?: string
}

const oldestQemu = [7, 2] as const
const memoryWarnMib = 1024
const clockSkewWarnMs = 5000
/** No version of this program is older, so an earlier year means a wrong clock. */
const yearOldest = 2025

export function hostChecks(facts: HostFacts): Check[] {
  return [
    checkSystem(facts),
    checkKvm(facts),
    checkQemu(facts),
    checkProgram(facts, "qemu-img", "qemu-utils"),
    ...checkKernel(facts),
    ...checkConfinement(facts),
    ...checkNetwork(facts),
    ...checkDataDir(facts),
    checkMemory(facts),
    // A user without access to the data directory has already been told so.
    ...(facts.dataDir.kind === "closed" ? [] : [checkConfig(facts), checkListener(facts)]),
    checkYear(facts),
  ]
}

export function connectionChecks(facts: ConnectionFacts): Check[] {
  const { daemon, url, token, ownVersion } = facts
  const keyText = token === undefined ? "no API key is set" : `the key from ${token.source} is refused`
  if (daemon.kind === "fails") {
    const { error } = daemon
    if (error.code !== "unauthenticated")
      return [{ area: "daemon", status: "fail", text: error.message, ...fixOf(error.hint) }]
    return [
      { area: "daemon", status: "ok", text: `answers at ${url}` },
      { area: "key", status: "fail", text: keyText, fix: "bhatti setup" },
    ]
  }
  const isSame = daemon.version === ownVersion
  return [
    { area: "daemon", status: "ok", text: `answers at ${url}` },
    { area: "key", status: "ok", text: `the key from ${token?.source ?? "nowhere"} is valid` },
    {
      area: "version",
      status: isSame ? "ok" : "warn",
      text: isSame ? `${ownVersion} here and there` : `${ownVersion} here, ${daemon.version} at the daemon`,
      ...(isSame ? {} : { fix: "install the same version on both sides, then restart the daemon" }),
    },
    ...daemon.warnings.map((text): Check => ({ area: "daemon", status: "warn", text })),
    ...checkSkew(daemon.clockSkewMs),
  ]
}

/** Settings of this program that are unusable, so that there is no connection to check. */
export function settingsCheck({ message, hint }: AppError): Check {
  return { area: "settings", status: "fail", text: message, ...fixOf(hint) }
}

function fixOf(hint: string | undefined): { fix?: string } {
  return hint === undefined ? {} : { fix: hint }
}

function checkSystem({ system }: HostFacts): Check {
  return system === "linux x64"
    ? { area: "system", status: "ok", text: "Linux on x86-64" }
    : {
        area: "system",
        status: "fail",
        text: `${system}: sandboxes run on Linux on x86-64 only`,
        fix: "use this program as a client of a daemon elsewhere: bhatti setup",
      }
}

function checkKvm({ kvm, dataDir, config, isRoot }: HostFacts): Check {
  const area = "kvm"
  const isNeeded = "accel" in config && (config.accel === "kvm" || config.isKvmRequired)
  const status = isNeeded ? "fail" : "warn"
  const slow = isNeeded ? "the daemon does not serve" : trust.emulation
  if ("accel" in config && config.accel === "tcg")
    return {
      area,
      status: "warn",
      text: `config.yaml says accel: tcg; ${slow}`,
      fix: "accel: auto in config.yaml",
    }
  if (kvm === "missing")
    return {
      area,
      status,
      text: `/dev/kvm is missing; ${slow}`,
      fix: "switch virtualisation on in the firmware, or use a host with nested virtualisation; then: sudo modprobe kvm_intel (or kvm_amd)",
    }
  if (kvm === "closed")
    return isRoot
      ? {
          area,
          status,
          text: `/dev/kvm cannot be opened; ${slow}`,
          fix: "sudo modprobe kvm_intel (or kvm_amd)",
        }
      : {
          area,
          status: "warn",
          text: "/dev/kvm is not open to you; the daemon may open it",
          fix: "sudo bhatti doctor",
        }
  const probe = dataDir.kind === "open" ? dataDir.probe : undefined
  if (probe === undefined || !probe.isOfThisBoot)
    return { area, status: "ok", text: "/dev/kvm opens; the daemon tries it when it starts" }
  return probe.problem === null
    ? { area, status: "ok", text: "a guest boots under KVM, started as machines are" }
    : {
        area,
        status,
        text: `no guest boots under KVM: ${probe.problem}; ${slow}`,
        fix: "a slow host needs more kvm_probe_seconds in config.yaml; sudo bhatti init --probe and a restart of the daemon try again; where nested virtualisation is broken, another host helps",
      }
}

function checkQemu(facts: HostFacts): Check {
  const found = checkProgram(facts, "qemu-system-x86_64", "qemu-system-x86")
  const version = facts.programs["qemu-system-x86_64"]?.version
  if (found.status !== "ok" || version === undefined) return found
  const [major = 0, minor = 0] = version.split(".").map(Number)
  const isOld = major < oldestQemu[0] || (major === oldestQemu[0] && minor < oldestQemu[1])
  if (!isOld) return found
  return {
    ...found,
    status: "fail",
    text: `QEMU ${version} is too old`,
    fix: `install ${oldestQemu.join(".")} or later`,
  }
}

function checkProgram({ programs }: HostFacts, name: keyof HostFacts["programs"], debian: string): Check {
  const program = programs[name]
  return program === undefined
    ? { area: name, status: "fail", text: "is not installed", fix: `sudo apt-get install ${debian}` }
    : { area: name, status: "ok", text: `${program.version ?? "some version"} at ${program.path}` }
}

const neededControllers = ["cpu", "memory", "pids"]

function checkKernel({ kernel }: HostFacts): Check[] {
  return [
    kernel.memfd
      ? { area: "kernel", status: "ok", text: `${kernel.release}, with memfd` }
      : {
          area: "kernel",
          status: "fail",
          text: `${kernel.release} has no memfd`,
          fix: "use Linux 5.10 or later",
        },
    checkControllers(kernel.controllers),
  ]
}

/** Checks the controllers that limit a machine's share of the host, beyond the size that QEMU gives the guest. */
function checkControllers(offered: string[] | undefined): Check {
  const area = "cgroups"
  const fix = "boot with systemd.unified_cgroup_hierarchy=1, or give this container the controllers"
  const missing = [...neededControllers, "io"].filter((one) => !offered?.includes(one))
  if (missing.length === 0)
    return {
      area,
      status: "ok",
      text: "machines are held to processor time, memory, threads and disk bandwidth",
    }
  if (missing.join() === "io")
    return {
      area,
      status: "warn",
      text: "cgroup v2 lacks io; nothing limits a machine's disk bandwidth, only its processor time, memory and threads",
      fix,
    }
  const why = offered === undefined ? "cgroup v2 is not mounted" : `cgroup v2 lacks ${missing.join(", ")}`
  const unlimited = "QEMU's own memory, a machine's processor time, threads and disk bandwidth"
  return { area, status: "warn", text: `${why}; nothing limits ${unlimited}`, fix }
}

/** Checks the features that protect the host from a QEMU that a guest has taken over. */
function checkConfinement({ kernel, config, dataDir, isRoot }: HostFacts): Check[] {
  const area = "confinement"
  const isReduced = "confinement" in config && config.confinement === "reduced"
  const namespaces: Check = isReduced
    ? {
        area,
        status: "warn",
        text: trust.reduced,
        fix: kernel.namespaces ? "confinement: full in config.yaml" : "a host that allows namespaces",
      }
    : kernel.namespaces
      ? { area, status: "ok", text: "each QEMU gets namespaces and a root directory of its own" }
      : {
          area,
          status: "fail",
          text: `this host refuses ${isRoot ? "namespaces" : "user namespaces"}; the daemon does not serve`,
          fix: `${isRoot ? "run outside of a container" : "let users make user namespaces (sysctl)"}, or accept less: confinement: reduced in config.yaml`,
        }
  return [
    namespaces,
    ...(isOfRoot({ dataDir, isRoot })
      ? []
      : [{ area, status: "warn", text: trust.notRoot, fix: "run the daemon as root" } as const]),
  ]
}

/** Returns true if this data directory's daemon runs as root. Assumes so for users without access to the directory. */
function isOfRoot({ dataDir, isRoot }: Pick<HostFacts, "dataDir" | "isRoot">): boolean {
  return isRoot || dataDir.kind !== "open" || dataDir.uid === 0
}

/** Only a daemon that runs as root uses these; another gives sandboxes QEMU's user network. */
function checkNetwork(facts: HostFacts): Check[] {
  const { kernel, config } = facts
  const area = "network"
  const isUser =
    "network" in config && (config.network === "user" || (config.network === "auto" && !isOfRoot(facts)))
  if (isUser) {
    const text = "network: user: sandboxes reach nothing, not even each other; published ports work"
    return [{ area, status: "warn", text, fix: "network: tap in config.yaml, with a daemon of root" }]
  }
  const tun: Check =
    kernel.tun === "opens"
      ? { area, status: "ok", text: "/dev/net/tun opens" }
      : facts.isRoot || kernel.tun === "missing"
        ? {
            area,
            status: "fail",
            text: `/dev/net/tun ${kernel.tun === "missing" ? "is missing" : "cannot be opened"}`,
            fix: "sudo modprobe tun",
          }
        : {
            area,
            status: "warn",
            text: "/dev/net/tun is not open to you; the daemon may open it",
            fix: "sudo bhatti doctor",
          }
  const bridge: Check = kernel.bridge
    ? { area, status: "ok", text: "an anchor for addresses can be made" }
    : {
        area,
        status: "warn",
        text: "the kernel's bridge module is not to be found",
        fix: "sudo modprobe bridge",
      }
  const nftables: Check[] =
    kernel.nftables === false
      ? [{ area, status: "fail", text: "nft cannot list its tables", fix: "sudo modprobe nf_tables" }]
      : []
  const forwarding: Check = {
    area,
    status: "ok",
    text: kernel.forwards
      ? "the host forwards packets"
      : "the host does not forward packets; the daemon switches that on when it starts",
  }
  return [
    tun,
    bridge,
    forwarding,
    checkProgram(facts, "ip", "iproute2"),
    checkProgram(facts, "nft", "nftables"),
    checkProgram(facts, "dnsmasq", "dnsmasq-base"),
    ...nftables,
    ...(facts.shares === undefined ? [] : checkShares(facts.shares)),
  ]
}

function checkDataDir({ dataDir, config, isRoot }: HostFacts): Check[] {
  const area = "data"
  const { path } = dataDir
  if (dataDir.kind === "absent")
    return [{ area, status: "fail", text: `${path} is missing`, fix: `sudo bhatti init --data-dir ${path}` }]
  if (dataDir.kind === "closed")
    return [
      { area, status: "warn", text: `${path} is the operator's; you see less`, fix: "sudo bhatti doctor" },
    ]
  const open = dataDir.files.filter(({ mode }) => (mode & 0o077) !== 0)
  const reserveMib = "reserveMib" in config ? config.reserveMib : 0
  return [
    (dataDir.mode & 0o077) === 0 && !(isRoot && dataDir.uid !== 0)
      ? { area, status: "ok", text: `${path} is closed to others` }
      : {
          area,
          status: "fail",
          text: `${path} is open to others`,
          fix: isRoot ? `sudo chown root ${path} && sudo chmod 700 ${path}` : `chmod 700 ${path}`,
        },
    ...open.map(
      ({ name, mode }): Check => ({
        area,
        status: "fail",
        text: `${path}/${name} is open to others (${mode.toString(8)})`,
        fix: `sudo chmod 600 ${path}/${name}`,
      }),
    ),
    ...dataDir.findings.map((finding): Check => ({ area, ...finding })),
    dataDir.kernelAndImage
      ? { area, status: "ok", text: "kernel and image are there" }
      : {
          area,
          status: "fail",
          text: "kernel or image is missing",
          fix: `sudo bhatti init --data-dir ${path}`,
        },
    checkSpace(dataDir.freeMib, reserveMib, path),
  ]
}

function checkSpace(freeMib: number, reserveMib: number, path: string): Check {
  const area = "space"
  const text = `${sizeInWords(freeMib)} free at ${path}`
  const fix = "make room there, or move the data directory"
  if (freeMib <= reserveMib)
    return {
      area,
      status: "fail",
      text: `${text}; ${sizeInWords(reserveMib)} stay reserved, so no sandbox can be created`,
      fix,
    }
  return freeMib < 4 * reserveMib ? { area, status: "warn", text, fix } : { area, status: "ok", text }
}

function checkMemory({ memoryAvailableMib, config }: HostFacts): Check {
  const area = "memory"
  const reserveMib = "memoryReserveMib" in config ? config.memoryReserveMib : 0
  const text = `${sizeInWords(memoryAvailableMib)} available`
  const fix = "stop something; a sandbox needs what it uses of its memory"
  if (memoryAvailableMib <= reserveMib)
    return {
      area,
      status: "fail",
      text: `${text}; ${sizeInWords(reserveMib)} stay reserved, so no sandbox can be started`,
      fix,
    }
  return memoryAvailableMib < Math.max(memoryWarnMib, 2 * reserveMib)
    ? { area, status: "warn", text, fix }
    : { area, status: "ok", text }
}

function checkConfig({ config }: HostFacts): Check {
  if ("problem" in config)
    return {
      area: "config",
      status: "fail",
      text: config.problem,
      ...fixOf(config.hint ?? "correct that line"),
    }
  return { area: "config", status: "ok", text: `listens at ${config.listen}, network ${config.network}` }
}

function checkListener({ listener, config }: HostFacts): Check {
  const area = "port"
  const address = "listen" in config ? config.listen : "its address"
  switch (listener) {
    case "bhatti":
      return { area, status: "ok", text: `a bhatti daemon answers at ${address}` }
    case "nobody":
      return {
        area,
        status: "warn",
        text: `${address} is free; the daemon does not run`,
        fix: "sudo systemctl start bhatti",
      }
    case "other":
      return {
        area,
        status: "fail",
        text: `something else than bhatti has ${address}`,
        fix: `sudo ss -ltnp shows what; or another listen: in config.yaml`,
      }
    case "unknown":
      return { area, status: "warn", text: "the daemon's address is not known" }
  }
}

function checkYear({ yearUtc }: HostFacts): Check {
  return yearUtc >= yearOldest
    ? { area: "clock", status: "ok", text: `the year is ${yearUtc}` }
    : {
        area: "clock",
        status: "fail",
        text: `the year is ${yearUtc}; guests get this clock, and certificates fail in them`,
        fix: "sudo timedatectl set-ntp true",
      }
}

function checkSkew(clockSkewMs: number | undefined): Check[] {
  if (clockSkewMs === undefined || Math.abs(clockSkewMs) < clockSkewWarnMs) return []
  const seconds = Math.round(Math.abs(clockSkewMs) / 1000)
  const text = `the daemon's clock is ${seconds} s ${clockSkewMs > 0 ? "ahead of" : "behind"} this one`
  return [{ area: "clock", status: "warn", text, fix: "sudo timedatectl set-ntp true, on both" }]
}

function sizeInWords(mib: number): string {
  return mib >= 10 * 1024 ? `${Math.floor(mib / 1024)} GB` : sizeText(mib)
}
