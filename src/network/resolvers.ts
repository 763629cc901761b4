/**
 * The name servers of sandboxes: one dnsmasq process per profile, at its own address on the anchor, as an
 * unprivileged user. They outlive the daemon; the next daemon adopts those that still fit.
 */

import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { errorCodeOf } from "../lib/error-code.ts"
import { isAlive, type ProcessIdentity } from "../lib/process-identity.ts"
import { resolverAddress, type Subnet } from "../rules/address.ts"
import { findNameServers, type NameServerProcess } from "./name-server-process.ts"
import { runFor } from "./network-programs.ts"
import { hostsText, type Profile, resolverConfig, type Sibling, serversText } from "./resolver.ts"

const endDeadlineMs = 5000

type Resolver = { profile: Profile; address: string; process: ProcessIdentity }

export class Resolvers {
  readonly #options: {
    directory: string
    table: string
    anchor: string
    subnet: Subnet
    mayBeInternal: boolean
  }
  readonly #user: { name: string; uid: number }
  readonly #addresses = new Map<string, string>()
  readonly #running = new Map<string, Resolver>()
  #upstreams: string[] = []

  constructor(options: {
    directory: string
    table: string
    anchor: string
    subnet: Subnet
    mayBeInternal: boolean
  }) {
    this.#options = options
    this.#user = unprivilegedUser()
  }

  /** Its address, fixed as long as it runs. */
  addressOf(profile: Profile): string {
    const known = this.#addresses.get(profile.key)
    if (known !== undefined) return known
    const taken = new Set(this.#addresses.values())
    for (let number = 0; ; number++) {
      const address = resolverAddress(this.#options.subnet, number)
      if (address === undefined) {
        throw new AppError("limit_exceeded", "the network has no address left for another name server", {
          hint: "a larger subnet in config.yaml",
        })
      }
      if (taken.has(address)) continue
      this.#addresses.set(profile.key, address)
      return address
    }
  }

  /** Sets the upstream servers of all name servers. */
  useUpstreams(upstreams: string[]): void {
    if (upstreams.join() === this.#upstreams.join()) return
    for (const resolver of this.#running.values()) this.#tellServers(resolver, upstreams)
    this.#upstreams = upstreams
  }

  /** Returns once the name server runs. A new one knows the siblings; `announce` updates a running one. */
  async serve(profile: Profile, siblings: Sibling[]): Promise<void> {
    const running = this.#running.get(profile.key)
    if (running && isAlive(running.process)) return
    this.#writeHosts(profile, siblings)
    await this.#start(profile)
  }

  /** Updates the sandboxes' names on all name servers of an owner. */
  announce(owner: string, siblings: Sibling[]): void {
    for (const { profile, process } of this.#running.values()) {
      if (profile.owner !== owner) continue
      this.#writeHosts(profile, siblings)
      signal(process, "SIGHUP")
    }
  }

  /** Restarts name servers that have exited. Returns how many. */
  async revive(): Promise<number> {
    const ended = [...this.#running.values()].filter(({ process }) => !isAlive(process))
    for (const { profile } of ended) await this.#start(profile)
    return ended.length
  }

  /** Ends name servers that are no longer needed. */
  async keepOnly(keys: ReadonlySet<string>): Promise<void> {
    for (const key of [...this.#addresses.keys()]) {
      if (!keys.has(key)) await this.#stop(key)
    }
  }

  /** Adopts name servers of an earlier daemon whose configuration is still current, and ends the others. */
  async adopt(wanted: ReadonlyMap<string, Profile>): Promise<void> {
    const { directory } = this.#options
    makePassable(directory)
    const found = Map.groupBy(findNameServers(directory), ({ key }) => key)
    for (const key of new Set([...readdirSync(directory), ...found.keys()])) {
      const config = readIfAny(this.#configPath(key))
      const address = found.get(key)?.[0]?.address ?? /^listen-address=(.+)$/m.exec(config ?? "")?.[1]
      if (address !== undefined) this.#addresses.set(key, address)
      const profile = wanted.get(key)
      const process = this.#mainProcess(found.get(key))
      const isFitting =
        profile && process && address !== undefined && config === this.#config(profile, address)
      if (isFitting) {
        this.#running.set(key, { profile, address, process })
        this.#tellServers({ profile, process }, this.#upstreams)
      } else await this.#stop(key)
    }
  }

  removeDirectory(): void {
    rmSync(this.#options.directory, { recursive: true, force: true })
  }

  async #start(profile: Profile): Promise<void> {
    const address = this.addressOf(profile)
    const config = this.#configPath(profile.key)
    await runFor("give a name server its address", [
      "ip",
      "address",
      "replace",
      `${address}/32`,
      "dev",
      this.#options.anchor,
    ])
    writeFileSync(config, this.#config(profile, address), { mode: 0o600 })
    this.#writeFor(profile, "servers", serversText(profile, this.#upstreams))
    // dnsmasq daemonizes as soon as it listens.
    await runFor("start a name server", ["dnsmasq", `--conf-file=${config}`])
    const process = this.#mainProcess(this.#processesOf(profile.key))
    if (process === undefined) {
      throw new AppError("unavailable", "a name server of sandboxes ended as soon as it was started", {
        hint: "see its output in the host's log",
      })
    }
    this.#running.set(profile.key, { profile, address, process })
  }

  async #stop(key: string): Promise<void> {
    const processes = this.#processesOf(key).map(({ process }) => process)
    const address = this.#addresses.get(key)
    for (const process of processes) signal(process, "SIGTERM")
    for (const beganMs = performance.now(); processes.some(isAlive); await Bun.sleep(2)) {
      const takenMs = performance.now() - beganMs
      if (takenMs > endDeadlineMs) for (const process of processes) signal(process, "SIGKILL")
      if (takenMs <= 2 * endDeadlineMs) continue
      throw new AppError("unavailable", `a name server of sandboxes does not end`, {
        hint: "it is stuck in the kernel; look at the host's kernel log",
      })
    }
    this.#running.delete(key)
    this.#addresses.delete(key)
    rmSync(join(this.#options.directory, key), { recursive: true, force: true })
    if (address === undefined) return
    const command = ["ip", "address", "delete", `${address}/32`, "dev", this.#options.anchor]
    await runFor("take back a name server's address", command).catch((error: unknown) => {
      // The anchor may have been removed together with it.
      if (!(error instanceof AppError)) throw error
    })
  }

  #processesOf(key: string): NameServerProcess[] {
    return findNameServers(this.#options.directory).filter((found) => found.key === key)
  }

  /** The others are its forks, which end with the connection they serve. */
  #mainProcess(found: NameServerProcess[] = []): ProcessIdentity | undefined {
    return found.map(({ process }) => process).toSorted((a, b) => a.startTicks - b.startTicks)[0]
  }

  #config(profile: Profile, address: string): string {
    return resolverConfig({
      ...this.#options,
      profile,
      address,
      directory: join(this.#options.directory, profile.key),
      user: this.#user.name,
    })
  }

  #configPath(key: string): string {
    return join(this.#options.directory, key, "dnsmasq.conf")
  }

  #tellServers({ profile, process }: Pick<Resolver, "profile" | "process">, upstreams: string[]): void {
    const text = serversText(profile, upstreams)
    if (readIfAny(join(this.#options.directory, profile.key, "servers")) === text) return
    this.#writeFor(profile, "servers", text)
    signal(process, "SIGHUP")
  }

  #writeHosts(profile: Profile, siblings: Sibling[]): void {
    this.#writeFor(profile, "hosts", hostsText(siblings))
  }

  /** Only the name server's own user may read the names of an owner's sandboxes. */
  #writeFor(profile: Profile, name: "hosts" | "servers", text: string): void {
    const directory = join(this.#options.directory, profile.key)
    makePassable(directory)
    const path = join(directory, name)
    writeFileSync(`${path}.part`, text, { mode: 0o400 })
    chownSync(`${path}.part`, this.#user.uid, 0)
    renameSync(`${path}.part`, path)
  }
}

/** The name server's user only passes through it to its own file. Independent of the umask. */
function makePassable(directory: string): void {
  mkdirSync(directory, { recursive: true })
  chmodSync(directory, 0o711)
}

function unprivilegedUser(): { name: string; uid: number } {
  const passwd = readFileSync("/etc/passwd", "utf8")
  for (const name of ["dnsmasq", "nobody"]) {
    const uid = new RegExp(`^${name}:[^:]*:([0-9]+):`, "m").exec(passwd)?.[1]
    if (uid !== undefined) return { name, uid: Number(uid) }
  }
  throw new AppError("unavailable", "this host has neither a user dnsmasq nor a user nobody", {
    hint: "sudo apt-get install dnsmasq-base",
    retryable: false,
  })
}

function signal(identity: ProcessIdentity, name: "SIGHUP" | "SIGTERM" | "SIGKILL"): void {
  if (!isAlive(identity)) return
  try {
    process.kill(identity.pid, name)
  } catch (error) {
    if (errorCodeOf(error) !== "ESRCH") throw error
  }
}

function readIfAny(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if (errorCodeOf(error) === "ENOENT" || errorCodeOf(error) === "ESRCH") return undefined
    throw error
  }
}
