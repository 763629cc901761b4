/**
 * The name servers of sandboxes: a dnsmasq process per profile, at an address of its own on the anchor, as an unprivileged
 * user. They outlive the daemon; the next one finds them by their directory below /run and keeps those that still fit.
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
import { AppError } from "../contract/errors.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { resolverAddress, type Subnet } from "../rules/address.ts"
import { runProgram } from "./program.ts"
import { hostsText, type Profile, resolverConfig, type Sibling } from "./resolver.ts"

const endDeadlineMs = 5000

type Resolver = { profile: Profile; address: string; pid: number }

export class Resolvers {
  readonly #options: {
    directory: string
    table: string
    anchor: string
    subnet: Subnet
    upstreams: string[]
    mayBeInternal: boolean
  }
  readonly #user: { name: string; uid: number }
  readonly #addresses = new Map<string, string>()
  readonly #running = new Map<string, Resolver>()

  constructor(options: {
    directory: string
    table: string
    anchor: string
    subnet: Subnet
    upstreams: string[]
    mayBeInternal: boolean
  }) {
    this.#options = options
    this.#user = unprivilegedUser()
  }

  /** Its address, which is kept as long as it runs. */
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

  /** Runs when this answers. One that starts knows the siblings; one that runs is told by `announce`. */
  async serve(profile: Profile, siblings: Sibling[]): Promise<void> {
    const running = this.#running.get(profile.key)
    if (running && isOurs(running.pid, this.#configPath(profile.key))) return
    this.#writeHosts(profile, siblings)
    await this.#start(profile)
  }

  /** Tells those of an owner who its sandboxes are now. */
  announce(owner: string, siblings: Sibling[]): void {
    for (const { profile, pid } of this.#running.values()) {
      if (profile.owner !== owner) continue
      this.#writeHosts(profile, siblings)
      if (isOurs(pid, this.#configPath(profile.key))) signal(pid, "SIGHUP")
    }
  }

  /** Starts those again that have ended by themselves. How many. */
  async revive(): Promise<number> {
    const ended = [...this.#running.values()].filter(
      ({ profile, pid }) => !isOurs(pid, this.#configPath(profile.key)),
    )
    for (const { profile } of ended) await this.#start(profile)
    return ended.length
  }

  /** Ends those that nobody needs. */
  async keepOnly(keys: ReadonlySet<string>): Promise<void> {
    for (const key of [...this.#addresses.keys()]) {
      if (!keys.has(key)) await this.#stop(key)
    }
  }

  /** Finds what an earlier daemon has left: kept if its configuration is what it would be today, else ended. */
  async adopt(wanted: ReadonlyMap<string, Profile>): Promise<void> {
    const { directory } = this.#options
    makePassable(directory)
    for (const key of readdirSync(directory)) {
      const config = readIfAny(this.#configPath(key))
      const address = /^listen-address=(.+)$/m.exec(config ?? "")?.[1]
      const profile = wanted.get(key)
      const pid = findProcess(this.#configPath(key))
      if (address !== undefined) this.#addresses.set(key, address)
      const isFitting =
        profile && pid !== undefined && address !== undefined && config === this.#config(profile, address)
      if (isFitting) this.#running.set(key, { profile, address, pid })
      else await this.#stop(key)
    }
  }

  removeDirectory(): void {
    rmSync(this.#options.directory, { recursive: true, force: true })
  }

  async #start(profile: Profile): Promise<void> {
    const address = this.addressOf(profile)
    const config = this.#configPath(profile.key)
    await runProgram("give a name server its address", [
      "ip",
      "address",
      "replace",
      `${address}/32`,
      "dev",
      this.#options.anchor,
    ])
    writeFileSync(config, this.#config(profile, address), { mode: 0o600 })
    // It goes to the background by itself as soon as it listens.
    await runProgram("start a name server", ["dnsmasq", `--conf-file=${config}`])
    const pid = Number(readFileSync(join(this.#options.directory, profile.key, "pid"), "utf8"))
    this.#running.set(profile.key, { profile, address, pid })
  }

  async #stop(key: string): Promise<void> {
    const config = this.#configPath(key)
    const pid = this.#running.get(key)?.pid ?? findProcess(config)
    const address = this.#addresses.get(key)
    if (pid !== undefined && isOurs(pid, config)) {
      signal(pid, "SIGTERM")
      for (const endMs = Date.now() + endDeadlineMs; isOurs(pid, config); await Bun.sleep(2)) {
        if (Date.now() > endMs) signal(pid, "SIGKILL")
      }
    }
    this.#running.delete(key)
    this.#addresses.delete(key)
    rmSync(join(this.#options.directory, key), { recursive: true, force: true })
    if (address === undefined) return
    const command = ["ip", "address", "delete", `${address}/32`, "dev", this.#options.anchor]
    await runProgram("take back a name server's address", command).catch((error: unknown) => {
      // The anchor may have gone with it.
      if (!(error instanceof AppError)) throw error
    })
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

  /** Only the name server's own user reads the names of somebody's sandboxes. */
  #writeHosts(profile: Profile, siblings: Sibling[]): void {
    const directory = join(this.#options.directory, profile.key)
    makePassable(directory)
    const path = join(directory, "hosts")
    writeFileSync(`${path}.part`, hostsText(siblings), { mode: 0o400 })
    chownSync(`${path}.part`, this.#user.uid, 0)
    renameSync(`${path}.part`, path)
  }
}

/** The name server's user goes through it, to its own file only. Whatever the umask is. */
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

function findProcess(configPath: string): number | undefined {
  return readdirSync("/proc")
    .map(Number)
    .find((pid) => Number.isInteger(pid) && isOurs(pid, configPath))
}

/** A pid alone proves nothing, it is used again. */
function isOurs(pid: number, configPath: string): boolean {
  const words = readIfAny(`/proc/${pid}/cmdline`)?.split("\0") ?? []
  return words.includes(`--conf-file=${configPath}`)
}

function signal(pid: number, name: "SIGHUP" | "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, name)
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
