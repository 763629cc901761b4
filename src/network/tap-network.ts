/**
 * The network of sandboxes on this host: each TAP device is a link of its own to the host, which routes. One set of
 * rules decides which packets pass; it is installed before any sandbox runs and stays when the daemon stops.
 *
 * Changes run one at a time, so the remembered state always matches the kernel's.
 */

import { existsSync } from "node:fs"
import { AppError } from "@bhatti/contract/errors"
import type { NetPolicy } from "@bhatti/contract/network"
import { readNameServers } from "../lib/host-name-servers.ts"
import {
  covers,
  gatewayOf,
  macOf,
  networkText,
  parseNetwork,
  type Subnet,
  sandboxAddress,
} from "../rules/address.ts"
import { makeAnchor, refuseOverlap } from "./anchor.ts"
import { closedAmong } from "./internal.ts"
import { linkSettings, linkUpBatch, switchLinkOn, writeSetting } from "./links.ts"
import { programLines, runFor } from "./network-programs.ts"
import { Nftables } from "./nftables.ts"
import { profileOf, type Sibling } from "./resolver.ts"
import { Resolvers } from "./resolvers.ts"
import {
  addLease,
  changePolicy,
  type HostNetwork,
  type Lease,
  noRuleset,
  removeLease,
  type Site,
  wholeRuleset,
} from "./ruleset.ts"

/** A name server that was just in use may soon be needed again. */
const lingerMs = 10_000
const lookMs = 5000
/** How soon a changed name server of the host takes effect. */
const lookAtServersMs = 1000
const applying = "apply the network rules"
const reading = "read the network rules"
/** A listed set that a name server has filled: its name and its elements. */
const learnedSet = /set (names_\S+) \{[^{}]*elements = \{([^}]*)\}/g

export type Attachment = { id: string; slot: number; owner: string; hostname: string; policy: NetPolicy }

type Attached = { attachment: Attachment; lease: Lease }

export class TapNetwork {
  readonly #site: Site
  readonly #subnet: Subnet
  readonly #dataDir: string
  readonly #hostNetwork: HostNetwork
  readonly #resolvers: Resolvers
  /** Upstream servers that the operator has chosen; empty means the host's. */
  readonly #chosenServers: string[]
  readonly #nftables = new Nftables()
  readonly #attached = new Map<string, Attached>()
  /** True while the remembered rules match the kernel's. */
  #isKnown = false
  #last: Promise<unknown> = Promise.resolve()
  #lingering: Timer | undefined

  constructor(options: { dataDir: string; subnet: string; upstreams: string[]; opened: string[] }) {
    const subnet = parseNetwork(options.subnet)
    if (!subnet) throw new Error(`${options.subnet} is not a network`)
    this.#dataDir = options.dataDir
    this.#site = siteOf(options.dataDir)
    this.#subnet = subnet
    this.#hostNetwork = {
      site: this.#site,
      subnet: networkText(subnet),
      gateway: gatewayOf(subnet),
      opened: options.opened,
    }
    this.#chosenServers = options.upstreams
    this.#resolvers = new Resolvers({
      directory: `/run/${this.#site.table}`,
      table: this.#site.table,
      anchor: this.#site.anchor,
      subnet,
      mayBeInternal: options.opened.length > 0,
    })
  }

  /** Fifteen characters, the longest name of an interface. */
  tapOf(id: string): string {
    return `${this.#site.tapPrefix}${id.slice("sb_".length, "sb_".length + 8)}`
  }

  closedAmong(cidrs: string[]): string[] {
    return closedAmong(cidrs, this.#hostNetwork)
  }

  /** The identity passed to the guest. The gateway answers DNS queries too, whichever name server is behind it. */
  identityOf(sandbox: { id: string; slot: number }) {
    const { gateway } = this.#hostNetwork
    return {
      mac: macOf(sandbox.id),
      address: this.#addressOf(sandbox),
      prefix: 32,
      gateway,
      dns: [gateway],
      mtu: 1500,
    }
  }

  /** Brings up the host's end of a machine's link. Until it is attached, the link carries no traffic. */
  async linkUp(...sandboxes: { id: string; slot: number }[]): Promise<void> {
    const links = sandboxes.map((sandbox) => ({
      tap: this.tapOf(sandbox.id),
      mac: macOf(sandbox.id),
      address: this.#addressOf(sandbox),
    }))
    for (const { tap } of links) {
      for (const [name, value] of linkSettings(tap)) writeSetting(name, value)
    }
    const { gateway } = this.#hostNetwork
    try {
      for (const link of links) switchLinkOn(link, gateway)
    } catch {
      // The program either gets on or says in words why not.
      const input = links.map((link) => linkUpBatch(link, gateway)).join("")
      await runFor("switch on a sandbox's network", ["ip", "-batch", "-"], { input })
    }
  }

  /**
   * Adds the rules of a sandbox and its place among its owner's. Called again with another policy or name, changes
   * them.
   */
  attach(attachment: Attachment): Promise<void> {
    return this.#inTurn(async () => {
      const before = this.#attached.get(attachment.id)
      const lease = this.#leaseOf(attachment)
      const others = this.#leases().filter(({ id }) => id !== lease.id)
      const text = before
        ? changePolicy(this.#site, before.lease, lease, others)
        : addLease(this.#site, lease)
      const profile = profileOf(attachment.owner, attachment.policy)
      this.#attached.set(attachment.id, { attachment, lease })
      const siblings = this.#siblingsOf(attachment.owner)
      try {
        this.#change(text)
        await this.#resolvers.serve(profile, siblings)
      } catch (error) {
        if (before) this.#attached.set(attachment.id, before)
        else this.#attached.delete(attachment.id)
        this.#isKnown = false
        throw error
      }
      this.#resolvers.announce(attachment.owner, siblings)
      this.#pruneLater()
    })
  }

  /** Removes its rules. Its TAP device disappears with its machine, and the route with the device. */
  detach(id: string): Promise<void> {
    return this.#inTurn(async () => {
      const attached = this.#attached.get(id)
      if (!attached) return
      const { lease, attachment } = attached
      this.#attached.delete(id)
      try {
        this.#change(removeLease(this.#site, lease, this.#leases()))
      } catch (error) {
        this.#attached.set(id, attached)
        throw error
      }
      this.#resolvers.announce(attachment.owner, this.#siblingsOf(attachment.owner))
      this.#pruneLater()
    })
  }

  /** Rebuilds everything, whatever the current state: exactly these sandboxes are attached. */
  resync(attachments: Attachment[]): Promise<void> {
    return this.#inTurn(async () => {
      await refuseOverlap(this.#site, this.#subnet, this.#dataDir)
      writeSetting("ipv4/ip_forward", "1")
      await makeAnchor(this.#site, this.#subnet, this.#dataDir)
      const profiles = new Map(
        attachments
          .map(({ owner, policy }) => profileOf(owner, policy))
          .map((profile) => [profile.key, profile]),
      )
      this.#lookAtServers()
      await this.#resolvers.adopt(profiles)
      this.#attached.clear()
      for (const attachment of attachments) {
        this.#attached.set(attachment.id, { attachment, lease: this.#leaseOf(attachment) })
      }
      this.#regenerate()
      this.#isKnown = true
      for (const profile of profiles.values()) {
        await this.#resolvers.serve(profile, this.#siblingsOf(profile.owner))
        this.#resolvers.announce(profile.owner, this.#siblingsOf(profile.owner))
      }
      // A daemon that was killed may not have done that.
      const running = attachments.filter(({ id }) => existsSync(`/sys/class/net/${this.tapOf(id)}`))
      await this.linkUp(...running)
    })
  }

  /**
   * Until the signal aborts: restores the rules when another program removes them, as `nft flush ruleset` does,
   * restarts name servers that have exited, and follows the host's own name servers. Reports each repair to
   * `onRepair`.
   */
  async guard(signal: AbortSignal, onRepair: (what: string, error?: unknown) => void): Promise<void> {
    const putBack = () => {
      if (this.#hasRules()) return
      this.#regenerate()
      onRepair("the network rules of sandboxes had been removed")
    }
    const rulesLost = (error: unknown) => onRepair("the network rules of sandboxes are gone", error)
    const looking = setInterval(() => {
      this.#inTurn(async () => {
        if ((await this.#resolvers.revive()) > 0) onRepair("a name server of sandboxes had ended")
      }).catch((error: unknown) => onRepair("a name server of sandboxes cannot be started", error))
      // The kernel does not report a table that disappears with the process that owned it, and does not report
      // again after a failed repair.
      this.#inTurn(async () => putBack()).catch(rulesLost)
    }, lookMs)
    const following = setInterval(() => void follow(), lookAtServersMs)
    let told: string | null = null
    const follow = () =>
      this.#inTurn(async () => {
        const trouble = this.#lookAtServers()
        if (trouble !== null && trouble !== told)
          onRepair(`sandboxes cannot resolve internet names: ${trouble}`)
        told = trouble
      }).catch((error: unknown) => onRepair("name servers of sandboxes cannot be told of the host's", error))
    void follow()
    signal.addEventListener("abort", () => {
      clearInterval(looking)
      clearInterval(following)
    })
    // The monitor ends with the daemon, however that ends.
    const command = ["setpriv", "--pdeathsig", "KILL", "nft", "monitor", "destroy", "tables"]
    for await (const line of programLines(command, signal)) {
      if (line.endsWith(` ${this.#site.table}`)) await this.#inTurn(async () => putBack()).catch(rulesLost)
    }
  }

  /** Runs when the daemon stops: keeps what running sandboxes need; removes everything if none runs. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      clearTimeout(this.#lingering)
      await this.#prune()
      if (this.#attached.size > 0 || !existsSync(`/sys/class/net/${this.#site.anchor}`)) return
      this.#nftables.run("remove the network rules", noRuleset(this.#site))
      await runFor("remove the anchor", ["ip", "link", "delete", "dev", this.#site.anchor])
      this.#resolvers.removeDirectory()
    })
  }

  /**
   * Updates all name servers if the host's name servers have changed. Returns what is wrong with the host's, or
   * null.
   */
  #lookAtServers(): string | null {
    const { servers, trouble } =
      this.#chosenServers.length > 0
        ? { servers: this.#chosenServers, trouble: null }
        : readNameServers({ accepts: (address) => !this.#isOfSandboxes(address) })
    this.#resolvers.useUpstreams(servers)
    return trouble
  }

  /** Returns true for an address of a sandbox or of its name server: forwarding there would loop. */
  #isOfSandboxes(address: string): boolean {
    const network = parseNetwork(address)
    return network !== undefined && covers(this.#subnet, network)
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#last.then(work)
    this.#last = done.catch(() => undefined)
    return done
  }

  /** Applies a step; rebuilds all rules if another program has changed them so that the step does not fit. */
  #change(step: string): void {
    if (this.#isKnown) {
      try {
        this.#nftables.run(applying, step)
        return
      } catch (error) {
        if (!(error instanceof AppError)) throw error
        this.#isKnown = false
      }
    }
    this.#regenerate()
    this.#isKnown = true
  }

  #regenerate(): void {
    this.#nftables.run(applying, wholeRuleset(this.#hostNetwork, this.#leases(), this.#learned()))
  }

  /** Returns the addresses that name servers have added to their sets; empty if there are no rules yet. */
  #learned(): Map<string, string[]> {
    const { table } = this.#site
    const learned = new Map<string, string[]>()
    if (!this.#hasRules()) return learned
    const rules = this.#nftables.run(reading, `list table inet ${table}`)
    for (const [, name = "", elements = ""] of rules.matchAll(learnedSet)) {
      learned.set(
        name,
        elements.split(",").map((element) => element.trim()),
      )
    }
    return learned
  }

  #hasRules(): boolean {
    const { table } = this.#site
    const tables = this.#nftables.run(reading, "list tables")
    return ["inet", "arp"].every((family) => new RegExp(`^table ${family} ${table}\\b`, "m").test(tables))
  }

  #pruneLater(): void {
    if (this.#lingering) return
    this.#lingering = setTimeout(() => {
      this.#lingering = undefined
      void this.#inTurn(() => this.#prune())
    }, lingerMs)
    this.#lingering.unref()
  }

  async #prune(): Promise<void> {
    const attachments = [...this.#attached.values()].map(({ attachment }) => attachment)
    await this.#resolvers.keepOnly(
      new Set(attachments.map(({ owner, policy }) => profileOf(owner, policy).key)),
    )
  }

  #leases(): Lease[] {
    return [...this.#attached.values()].map(({ lease }) => lease)
  }

  #siblingsOf(owner: string): Sibling[] {
    return [...this.#attached.values()]
      .filter(({ attachment }) => attachment.owner === owner)
      .map(({ attachment, lease }) => ({ address: lease.address, hostname: attachment.hostname }))
  }

  #leaseOf(attachment: Attachment): Lease {
    const { id, owner, policy } = attachment
    const profile = profileOf(owner, policy)
    return {
      id,
      tap: this.tapOf(id),
      mac: macOf(id),
      address: this.#addressOf(attachment),
      owner,
      policy,
      resolver: this.#resolvers.addressOf(profile),
      hostSet: profile.hostSet,
    }
  }

  #addressOf({ slot }: { slot: number }): string {
    const address = sandboxAddress(this.#subnet, slot)
    if (address !== undefined) return address
    throw new AppError("limit_exceeded", `the subnet ${this.#hostNetwork.subnet} has no address left`, {
      hint: "destroy sandboxes, or a larger subnet in config.yaml",
    })
  }
}

/** Derives an installation's names from its data directory, which is unique on a host. */
export function siteOf(dataDir: string): Site {
  const digest = new Bun.CryptoHasher("sha256").update(dataDir).digest("hex").slice(0, 5)
  return { table: `bhatti_${digest}`, tapPrefix: `bh${digest}`, anchor: `bhgw${digest}` }
}
