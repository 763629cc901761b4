/**
 * Lets programs that fetch images onto the network, a bounded number at once for all and for each user, with a user id
 * of their own. The rules are in place before a program begins, and it is ended when they are lost.
 */

import { lookup } from "node:dns/promises"
import { AppError } from "@bhatti/contract/errors"
import { readNameServers } from "../lib/host-name-servers.ts"
import { whenAborted } from "../lib/when-aborted.ts"
import { FetcherPlaces } from "./fetcher-places.ts"
import { Nftables } from "./nftables.ts"
import { type Fetcher, type RegistryNetwork, registryRules } from "./registry-rules.ts"
import { siteOf } from "./tap-network.ts"

/** A registry of the operator's, which may be internal. */
export type OwnRegistry = { host: string; isInsecure: boolean; tokenHost?: string | undefined }

export type Admission = {
  uid: number
  nameServers: string[]
  /** Lines of a hosts file: the registry is asked at the addresses that the rules permit. */
  hosts: string[]
  /** Aborts when the rules are lost. */
  lost: AbortSignal
} & AsyncDisposable

const lookMs = 1000

export class RegistryEgress {
  readonly #nftables = new Nftables()
  readonly #network: Omit<RegistryNetwork, "nameServers">
  readonly #upstreams: readonly string[]
  readonly #fetchers = new Map<number, Fetcher>()
  readonly #places: FetcherPlaces
  #isClosed = false

  constructor(options: {
    dataDir: string
    subnet: string
    opened: string[]
    upstreams: readonly string[]
    uids: readonly number[]
    /** How many of them one owner has at once. */
    ownerMax: number
  }) {
    const { dataDir, subnet, opened, uids } = options
    this.#network = { table: `${siteOf(dataDir).table}_images`, subnet, opened, uids }
    this.#upstreams = options.upstreams
    this.#places = new FetcherPlaces(uids, { ownerMax: options.ownerMax })
  }

  /** Waits until a user id is free for `owner`. `own` is the registry to ask, if it is the operator's. */
  async admit(own: OwnRegistry | undefined, owner: string, signal: AbortSignal): Promise<Admission> {
    await using undo = new AsyncDisposableStack()
    const uid = await this.#places.take(owner, signal)
    undo.defer(() => this.#places.give(owner, uid))
    const servers = own ? [own.host, ...(own.tokenHost === undefined ? [] : [own.tokenHost])] : []
    const isInsecure = own?.isInsecure ?? false
    const resolved = servers.map((host) => addressesOf({ host, isInsecure }))
    const registries = (await unlessAborted(signal, Promise.all(resolved))).flat()
    if (this.#isClosed) throw new AppError("unavailable", "the daemon is stopping", { retryable: true })
    this.#fetchers.set(uid, { uid, registries: registries.map(({ address, port }) => ({ address, port })) })
    undo.defer(() => {
      this.#fetchers.delete(uid)
      if (this.#isClosed) this.#removeUnused()
      else this.#apply()
    })
    this.#apply()
    const lost = new AbortController()
    const looking = setInterval(() => {
      if (!this.#isThere()) lost.abort(new Error("the network rules of registries are gone"))
    }, lookMs)
    undo.defer(() => clearInterval(looking))
    const taken = undo.move()
    return {
      uid,
      nameServers: this.#servers(),
      hosts: registries.map(({ address, name }) => `${address} ${name}`),
      lost: lost.signal,
      [Symbol.asyncDispose]: () => taken.disposeAsync(),
    }
  }

  /** When the daemon stops: lets nobody in any more. The rules stay as long as a program relies on them. */
  close(): void {
    this.#isClosed = true
    this.#removeUnused()
  }

  #removeUnused(): void {
    if (this.#fetchers.size > 0) return
    const { table } = this.#network
    this.#nftables.run(
      "remove the rules of registries",
      `add table inet ${table}\ndelete table inet ${table}\n`,
    )
  }

  #apply(): void {
    const network = { ...this.#network, nameServers: this.#servers() }
    this.#nftables.run(
      "apply the network rules of registries",
      registryRules(network, [...this.#fetchers.values()]),
    )
  }

  #isThere(): boolean {
    try {
      this.#nftables.run(
        "read the network rules of registries",
        `list chain inet ${this.#network.table} fetch`,
      )
      return true
    } catch {
      return false
    }
  }

  /** Servers with a zone are left out: nftables knows none. */
  #servers(): string[] {
    const servers = this.#upstreams.length > 0 ? [...this.#upstreams] : readNameServers().servers
    return servers.filter((server) => !server.includes("%"))
  }
}

/** The host's resolver may wait long, and cannot be stopped. */
async function unlessAborted<T>(signal: AbortSignal, result: Promise<T>): Promise<T> {
  const { promise: left, reject } = Promise.withResolvers<never>()
  using _leaving = whenAborted(signal, () => reject(signal.reason))
  return await Promise.race([result, left])
}

/** A name that does not resolve gives none; the program then says so itself. */
async function addressesOf({ host, isInsecure }: Pick<OwnRegistry, "host" | "isInsecure">) {
  const [name = "", port] = host.split(":")
  const ports = port === undefined ? (isInsecure ? [443, 80] : [443]) : [Number(port)]
  const found = await lookup(name, { all: true, family: 4 }).catch(() => [])
  return found.flatMap(({ address }) => ports.map((one) => ({ name, address, port: one })))
}
