/** Gathers the doctor's findings without judging them; `checks.ts` judges. Needs no daemon and changes nothing. */

import { constants, existsSync } from "node:fs"
import { open, readFile, stat, statfs } from "node:fs/promises"
import { arch, platform, release } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { Health } from "@bhatti/contract/system"
import { availableMemoryMib } from "../../lib/available-memory.ts"
import { errorCodeOf } from "../../lib/error-code.ts"
import { parseJson } from "../../lib/parse-json.ts"
import { version } from "../../lib/version.ts"
import type { Finding, Operator } from "../operator.ts"
import type { Settings } from "../settings.ts"
import { connectTo } from "../transport.ts"
import { gatherShares, type HostShares } from "./host-shares.ts"

export type Program = { path: string; version: string | undefined }

/** Files of the data directory that hold keys. */
export const privateFiles = ["age.key", "bhatti.db"] as const

export type DataDirFacts =
  | { kind: "absent" }
  /** Only the operator may read it. */
  | { kind: "closed" }
  | {
      kind: "open"
      mode: number
      uid: number
      freeMib: number
      files: { name: string; mode: number }[]
      kernelAndImage: boolean
      /** Findings for the operator, such as files that do not belong together. */
      findings: Finding[]
      probe: { problem: string | null; isOfThisBoot: boolean } | undefined
    }

export type HostFacts = {
  system: string
  isRoot: boolean
  kvm: "missing" | "closed" | "opens"
  programs: Record<"qemu-system-x86_64" | "qemu-img" | "ip" | "nft" | "dnsmasq", Program | undefined>
  kernel: {
    release: string
    memfd: boolean
    tun: "missing" | "closed" | "opens"
    bridge: boolean
    /** True if it forwards packets between interfaces. */
    forwards: boolean
    nftables: boolean | undefined
    /** True if this user may create all the namespaces that confine QEMU. */
    namespaces: boolean
    /** Controllers of cgroup v2; undefined if it is not mounted. */
    controllers: string[] | undefined
  }
  dataDir: DataDirFacts & { path: string }
  config:
    | {
        accel: string
        isKvmRequired: boolean
        confinement: "full" | "reduced"
        listen: string
        isTls: boolean
        network: string
        reserveMib: number
        memoryReserveMib: number
        uidBase: number
        hasNameServers: boolean
      }
    | { problem: string; hint: string | undefined }
  /** Undefined if the settings cannot be read. */
  shares: HostShares | undefined
  memoryAvailableMib: number
  listener: "bhatti" | "other" | "nobody" | "unknown"
  yearUtc: number
}

export type ConnectionFacts = {
  url: string
  token: { source: string } | undefined
  ownVersion: string
  daemon:
    | { kind: "answers"; version: string; warnings: string[]; clockSkewMs: number | undefined }
    | { kind: "fails"; error: AppError }
}

const answerMs = 5000

export async function gatherHost(operator: Operator, dataDir: string): Promise<HostFacts> {
  const config = await readConfig(operator, dataDir)
  const [kvm, tun, memfd, controllers, files, listener] = await Promise.all([
    tryDevice("/dev/kvm"),
    tryDevice("/dev/net/tun"),
    tryMemoryFile(),
    readControllers(),
    readDataDir(operator, dataDir),
    "listen" in config ? findListener(config) : ("unknown" as const),
  ])
  const nft = findProgram("nft", ["--version"])
  const isRoot = process.getuid?.() === 0
  return {
    system: `${platform()} ${arch()}`,
    isRoot,
    kvm,
    programs: {
      "qemu-system-x86_64": findProgram("qemu-system-x86_64", ["--version"]),
      "qemu-img": findProgram("qemu-img", ["--version"]),
      ip: findProgram("ip", ["-V"]),
      nft,
      dnsmasq: findProgram("dnsmasq", ["--version"]),
    },
    kernel: {
      release: release(),
      memfd,
      tun,
      bridge: hasModule("bridge"),
      forwards: (await readIfAny("/proc/sys/net/ipv4/ip_forward"))?.trim() === "1",
      nftables: nft !== undefined && isRoot ? runs([nft.path, "list", "tables"]) : undefined,
      namespaces: makesNamespaces(isRoot),
      controllers,
    },
    dataDir: { path: dataDir, ...files },
    config,
    shares: "problem" in config ? undefined : await gatherShares(config),
    memoryAvailableMib: availableMemoryMib({ groups: "outermost" }),
    listener,
    yearUtc: new Date().getUTCFullYear(),
  }
}

export async function gatherConnection(settings: Settings): Promise<ConnectionFacts> {
  const { url, tokenSource } = settings
  return {
    url,
    token: tokenSource === undefined ? undefined : { source: tokenSource },
    ownVersion: version,
    daemon: await askDaemon(settings),
  }
}

async function askDaemon(address: Settings): Promise<ConnectionFacts["daemon"]> {
  const sentMs = Date.now()
  let clockSkewMs: number | undefined
  const onHeaders = (headers: Headers) => {
    const theirsMs = Date.parse(headers.get("date") ?? "")
    // The daemon's clock shows whole seconds and was read between our two readings.
    if (!Number.isNaN(theirsMs)) clockSkewMs = theirsMs + 500 - (sentMs + Date.now()) / 2
  }
  try {
    const signal = AbortSignal.timeout(answerMs)
    const about = await connectTo(address).version({ signal, onHeaders })
    return { kind: "answers", version: about.version, warnings: about.warnings, clockSkewMs }
  } catch (cause) {
    if (cause instanceof AppError) return { kind: "fails", error: cause }
    const error = new AppError("unavailable", `${address.url} does not answer within ${answerMs / 1000} s`, {
      cause,
    })
    return { kind: "fails", error }
  }
}

async function readConfig(operator: Operator, dataDir: string): Promise<HostFacts["config"]> {
  try {
    const config = await operator.loadConfig({ dataDir })
    const { accel, require_kvm, confinement, listen, tls_cert, network, disk_reserve_mb, memory_reserve_mb } =
      config
    return {
      accel,
      isKvmRequired: require_kvm,
      confinement,
      listen,
      isTls: tls_cert !== undefined,
      network,
      reserveMib: disk_reserve_mb,
      memoryReserveMib: memory_reserve_mb,
      uidBase: config.uid_base,
      hasNameServers: config.dns_upstreams.length > 0,
    }
  } catch (error) {
    if (error instanceof AppError) return { problem: error.message, hint: error.hint }
    throw error
  }
}

async function tryDevice(path: string): Promise<"missing" | "closed" | "opens"> {
  if (!existsSync(path)) return "missing"
  try {
    const handle = await open(path, constants.O_RDWR)
    await handle.close()
    return "opens"
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return "closed"
  }
}

async function tryMemoryFile(): Promise<boolean> {
  try {
    const { createMemoryFile } = await import("../../lib/posix.ts")
    const { closeSync } = await import("node:fs")
    closeSync(createMemoryFile({ name: "bhatti-doctor", bytes: 4096 }))
    return true
  } catch (error) {
    if (error instanceof Error) return false
    throw error
  }
}

async function readControllers(): Promise<string[] | undefined> {
  const text = await readIfAny("/sys/fs/cgroup/cgroup.controllers")
  return text?.trim().split(/\s+/)
}

async function readIfAny(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8")
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return undefined
  }
}

/** Loaded, built in, or available. */
function hasModule(name: string): boolean {
  return existsSync(`/sys/module/${name}`) || runs(["modprobe", "--dry-run", "--quiet", name])
}

function makesNamespaces(isRoot: boolean): boolean {
  const kinds = ["--mount", "--pid", "--fork", "--ipc", "--uts", "--net"]
  return runs(["unshare", ...(isRoot ? [] : ["--user", "--map-root-user"]), ...kinds, "true"])
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

function findProgram(name: string, versionArguments: string[]): Program | undefined {
  const path = Bun.which(name, { PATH: searchPath })
  if (path === null) return undefined
  const { stdout, stderr } = Bun.spawnSync([path, ...versionArguments], { timeout: answerMs })
  const text = `${stdout}${stderr}`
  return { path, version: /(\d+\.\d+(\.\d+)?)/.exec(text)?.[1] ?? /-(\d{6})$/m.exec(text)?.[1] }
}

function runs(command: string[]): boolean {
  const [name = "", ...rest] = command
  const path = Bun.which(name, { PATH: searchPath })
  if (path === null) return false
  const { exitCode } = Bun.spawnSync([path, ...rest], {
    timeout: answerMs,
    stdout: "ignore",
    stderr: "ignore",
  })
  return exitCode === 0
}

async function readDataDir(operator: Operator, path: string): Promise<DataDirFacts> {
  try {
    const { mode, uid } = await stat(path)
    const { bavail, bsize } = await statfs(path)
    const files: { name: string; mode: number }[] = []
    for (const name of privateFiles) {
      const found = await statIfAny(join(path, name))
      if (found !== undefined) files.push({ name, mode: found.mode & 0o777 })
    }
    const parts = ["kernels/current.json", `images/${limits.imageDefault}/current.json`]
    const found = await Promise.all(parts.map((part) => statIfAny(join(path, part))))
    return {
      kind: "open",
      mode: mode & 0o777,
      uid,
      freeMib: Math.floor((bavail * bsize) / 1024 / 1024),
      files,
      kernelAndImage: found.every((one) => one !== undefined),
      findings: await operator.examine({ dataDir: path }),
      probe: await readProbe(join(path, "kvm-probe.json")),
    }
  } catch (error) {
    const code = errorCodeOf(error)
    if (code === "ENOENT") return { kind: "absent" }
    if (code === "EACCES") return { kind: "closed" }
    throw error
  }
}

async function statIfAny(path: string) {
  try {
    return await stat(path)
  } catch (error) {
    if (errorCodeOf(error) === "ENOENT") return undefined
    throw error
  }
}

/** The result of the daemon's KVM test, which booted a guest under KVM. */
async function readProbe(
  path: string,
): Promise<{ problem: string | null; isOfThisBoot: boolean } | undefined> {
  const text = await readIfAny(path)
  if (text === undefined) return undefined
  // A crash of the host may have damaged the file; the daemon then probes again.
  const found = parseJson(text) as { bootId: string; problem: string | null } | null | undefined
  if (!found) return undefined
  const current = (await readIfAny("/proc/sys/kernel/random/boot_id"))?.trim()
  return { problem: found.problem, isOfThisBoot: found.bootId === current }
}

/**
 * Finds out which program answers at the daemon's own address. The certificate is not verified, since it is for
 * another name.
 */
async function findListener({
  listen,
  isTls,
}: {
  listen: string
  isTls: boolean
}): Promise<HostFacts["listener"]> {
  const at = listen.lastIndexOf(":")
  const host = ["0.0.0.0", "[::]"].includes(listen.slice(0, at)) ? "127.0.0.1" : listen.slice(0, at)
  const url = `${isTls ? "https" : "http"}://${host}${listen.slice(at)}/health`
  try {
    const signal = AbortSignal.timeout(answerMs)
    const init = { signal, proxy: false, tls: { rejectUnauthorized: false } }
    const response = await fetch(url, init as BunFetchRequestInit)
    const health = parseJson(await response.text())
    return Health.safeParse(health).success ? "bhatti" : "other"
  } catch (error) {
    const code = errorCodeOf(error)
    return code === "ConnectionRefused" || code === "ECONNREFUSED" ? "nobody" : "other"
  }
}
