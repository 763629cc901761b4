/** Composes what the adapters check about this host, for `bhatti doctor`. Needs no daemon and changes nothing. */

import { arch, platform } from "node:os"
import type { Config } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { Health } from "@bhatti/contract/system"
import { loadConfig } from "./config.ts"
import { checkAccess, checkRoom, isUsersDaemon, lookAtDataDir } from "./disk/preflight.ts"
import { examine } from "./examine.ts"
import { isInstalled } from "./image/survey.ts"
import { availableMemoryMib } from "./lib/available-memory.ts"
import { errorCodeOf } from "./lib/error-code.ts"
import { parseJson } from "./lib/parse-json.ts"
import { type Check, fail, ok, sizeInWords, warn } from "./lib/preflight.ts"
import { checkForks, readTrial } from "./machine/fork-trial.ts"
import { checkUserIds, lookAtMachines, machineChecks } from "./machine/preflight.ts"
import { checkQemus, lookAtQemus } from "./machine/qemu-checks.ts"
import { otherUsersOf } from "./machine/user-ids.ts"
import { checkNames, lookAtNetwork, networkChecks } from "./network/preflight.ts"

const answerMs = 5000
const memoryWarnMib = 1024
/** No version of this program is older, so an earlier year means a wrong clock. */
const yearOldest = 2025

export type HostFacts = Awaited<ReturnType<typeof lookAtHost>>

export async function preflight(options: { dataDir: string; daemonUrl?: string }): Promise<Check[]> {
  return hostChecks(await lookAtHost(options))
}

async function lookAtHost({ dataDir, daemonUrl }: { dataDir: string; daemonUrl?: string }) {
  const isRoot = process.getuid?.() === 0
  const config = readConfig(dataDir)
  const data = await lookAtDataDir(dataDir)
  return {
    system: `${platform()} ${arch()}`,
    isRoot,
    dataDir,
    daemonUrl,
    data:
      typeof data === "string"
        ? data
        : // The findings are for the operator, such as files that do not belong together.
          { ...data, kernelAndImage: await isInstalled(dataDir), findings: await examine({ dataDir }) },
    config,
    machines: await lookAtMachines({ dataDir, isRoot }),
    qemus:
      config instanceof AppError || data === "closed"
        ? undefined
        : await lookAtQemus({ dataDir, uidBase: isRoot ? config.uid_base : undefined }),
    forkTrial: data === "closed" ? undefined : await readTrial(dataDir),
    network: lookAtNetwork({ isRoot }),
    others: config instanceof AppError ? [] : otherUsersOf(config.uid_base),
    memoryAvailableMib: availableMemoryMib({ groups: "outermost" }),
    listener: config instanceof AppError ? ("unknown" as const) : await findListener(config),
    yearUtc: new Date().getUTCFullYear(),
  }
}

export function hostChecks(facts: HostFacts): Check[] {
  const { data, isRoot, machines, yearUtc } = facts
  const config = facts.config instanceof AppError ? undefined : facts.config
  // A user without access to the directory is assumed to ask about a daemon of root, and root about one of its own.
  const isOfRoot = typeof data === "string" || (data.daemonUid ?? (isRoot ? 0 : data.uid)) === 0
  return [
    facts.system === "linux x64"
      ? ok("system", "Linux on x86-64")
      : fail(
          "system",
          `${facts.system}: sandboxes run on Linux on x86-64 only`,
          "use this program as a client of a daemon elsewhere: bhatti setup",
        ),
    ...machineChecks(machines, { config, isRoot, isOfRoot }),
    ...(facts.qemus && config ? checkQemus(facts.qemus, config.forbidden_qemu) : []),
    ...(config && data !== "closed"
      ? [
          checkForks(facts.forkTrial, {
            isWanted: config.forks === "auto",
            areApart: isOfRoot && config.confinement === "full",
            pool: config.pool,
          }),
        ]
      : []),
    ...checkNetwork(facts, config, isOfRoot),
    ...checkData(facts, config),
    checkMemory(facts.memoryAvailableMib, config?.memory_reserve_mb ?? 0),
    // A user without access to the data directory has already been told so.
    ...(data === "closed" ? [] : [checkConfig(facts.config), checkListener(facts.listener, config?.listen)]),
    ...(config && data !== "closed" ? checkIsSame(facts, config) : []),
    yearUtc >= yearOldest
      ? ok("clock", `the year is ${yearUtc}`)
      : fail(
          "clock",
          `the year is ${yearUtc}; guests get this clock, and certificates fail in them`,
          "sudo timedatectl set-ntp true",
        ),
  ]
}

function readConfig(dataDir: string): Config | AppError {
  try {
    return loadConfig({ dataDir }, process.env)
  } catch (error) {
    if (error instanceof AppError) return error
    throw error
  }
}

/** Only a daemon that runs as root has the routed network; another gives sandboxes QEMU's user network. */
function checkNetwork(facts: HostFacts, config: Config | undefined, isOfRoot: boolean): Check[] {
  if (config?.network === "user" || (config?.network === "auto" && !isOfRoot))
    return [
      warn(
        "network",
        "network: user: sandboxes reach nothing, not even each other; published ports work",
        "network: tap in config.yaml, with a daemon of root",
      ),
    ]
  const ofSettings = config && [
    checkUserIds(facts.others),
    checkNames(config.dns_upstreams.length > 0 ? null : facts.network.namesTrouble),
  ]
  return [...networkChecks(facts.network, facts), ...(ofSettings ?? [])]
}

function checkData({ data, dataDir, isRoot }: HostFacts, config: Config | undefined): Check[] {
  const fix = `sudo bhatti init --data-dir ${dataDir}`
  if (data === "absent") return [fail("data", `${dataDir} is missing`, fix)]
  if (data === "closed")
    return [warn("data", `${dataDir} is the operator's; you see less`, "sudo bhatti doctor")]
  return [
    // Root may do what that user's daemon may not.
    ...(isRoot && isUsersDaemon(data)
      ? [
          warn(
            "data",
            `${dataDir} is of the daemon of user ${data.uid}; root sees this host with other rights than it has`,
            `sudo -u '#${data.uid}' bhatti doctor --data-dir ${dataDir}`,
          ),
        ]
      : []),
    ...checkAccess(dataDir, data, isRoot),
    ...data.findings,
    data.kernelAndImage
      ? ok("data", "kernel and image are installed")
      : fail("data", "kernel or image is missing", fix),
    checkRoom(dataDir, data.freeMib, config?.disk_reserve_mb ?? 0),
  ]
}

function checkMemory(availableMib: number, reserveMib: number): Check {
  const text = `${sizeInWords(availableMib)} available`
  const fix = "stop a program; a sandbox needs the memory that it uses"
  if (availableMib <= reserveMib)
    return fail(
      "memory",
      `${text}; ${sizeInWords(reserveMib)} stay reserved, so no sandbox can be started`,
      fix,
    )
  const isShort = availableMib < Math.max(memoryWarnMib, 2 * reserveMib)
  return isShort ? warn("memory", text, fix) : ok("memory", text)
}

function checkConfig(config: HostFacts["config"]): Check {
  return config instanceof AppError
    ? fail("config", config.message, config.hint ?? "correct that line")
    : ok("config", `listens at ${config.listen}, network ${config.network}`)
}

function checkListener(listener: HostFacts["listener"], address = "its address"): Check {
  switch (listener) {
    case "bhatti":
      return ok("port", `a bhatti daemon answers at ${address}`)
    case "nobody":
      return warn("port", `${address} is free; the daemon does not run`, "sudo systemctl start bhatti")
    case "other":
      return fail(
        "port",
        `another program uses ${address}`,
        "sudo ss -ltnp shows what; or another listen: in config.yaml",
      )
    case "unknown":
      return warn("port", "the daemon's address is not known")
  }
}

/** This host may have several daemons. A proxy in front of one has TLS. */
function checkIsSame({ daemonUrl, dataDir }: HostFacts, { listen, tls_cert }: Config): Check[] {
  if (daemonUrl === undefined || tls_cert !== undefined) return []
  const { protocol, hostname, port } = new URL(daemonUrl)
  const isHere = hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.")
  if (protocol !== "http:" || !isHere || (port || "80") === listen.slice(listen.lastIndexOf(":") + 1))
    return []
  return [
    warn(
      "daemon",
      `the daemon of ${dataDir} listens at ${listen}, but your commands go to another one, at ${daemonUrl}`,
      "bhatti doctor --data-dir DIR, with the data directory of that one; or bhatti setup",
    ),
  ]
}

/** Asks at the daemon's own address. The certificate is not verified, since it is for another name. */
async function findListener({ listen, tls_cert }: Config): Promise<"bhatti" | "other" | "nobody"> {
  const at = listen.lastIndexOf(":")
  const host = ["0.0.0.0", "[::]"].includes(listen.slice(0, at)) ? "127.0.0.1" : listen.slice(0, at)
  const url = `${tls_cert === undefined ? "http" : "https"}://${host}${listen.slice(at)}/health`
  try {
    const signal = AbortSignal.timeout(answerMs)
    const init = { signal, proxy: false, tls: { rejectUnauthorized: false } }
    const response = await fetch(url, init as BunFetchRequestInit)
    return Health.safeParse(parseJson(await response.text())).success ? "bhatti" : "other"
  } catch (error) {
    return /ConnectionRefused|ECONNREFUSED/.test(errorCodeOf(error) ?? "") ? "nobody" : "other"
  }
}
