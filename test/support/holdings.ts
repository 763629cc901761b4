/** An installation's holdings of the host: how many processes, devices, files and user ids, and its rules as text. */

import { expect } from "bun:test"
import { existsSync, globSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { basename, join } from "node:path"
import { siteOf } from "../../src/network/tap-network.ts"
import type { Installation } from "./installation.ts"

/** Slots of sandboxes that tests use. Zygotes have the last ones of an installation. */
const slots = 1000
const zygoteSlots = { first: 64_512, count: 1024 }

export function holdingsOf(own: Installation) {
  const { table, tapPrefix, anchor } = siteOf(own.dataDir)
  const config = readFileSync(join(own.dataDir, "config.yaml"), "utf8")
  const setting = (pattern: RegExp) => pattern.exec(config)?.[1] ?? ""
  const subnet = setting(/^subnet: (\S+)/m)
  const uidBase = uidBaseOf(own)
  expect([subnet, uidBase]).not.toContain("")
  const isOwn = addressesIn(subnet)
  const linesWith = (text: string) => text.split("\n").filter(isOwn).length
  const links = readdirSync("/sys/class/net")
  const pid = own.daemonPid()
  const processes = listProcesses()
  const ofMachines = processes.filter(({ uid }) => uid >= uidBase && uid < uidBase + slots)
  const group = `bhatti-${new Bun.CryptoHasher("sha256").update(own.dataDir).digest("hex").slice(0, 8)}`
  return {
    taps: links.filter((name) => name.startsWith(tapPrefix)).length,
    bridges: links.filter((name) => name === anchor).length,
    // Counts of connections fall out of their set by themselves.
    rules: run("nft", "list", "table", "inet", table).replace(/set connections \{[^}]*\}/s, ""),
    arpRules: run("nft", "list", "table", "arp", table),
    routes: linesWith(run("ip", "route", "show", "table", "all")),
    neighbours: linesWith(run("ip", "neighbour", "show", "nud", "all")),
    nameServers: processes.filter(({ words }) => words.includes(`--conf-file=/run/${table}/`)).length,
    nameServerFiles: existsSync(`/run/${table}`) ? readdirSync(`/run/${table}`).length : 0,
    directories: readdirSync(join(own.dataDir, "sandboxes")).length,
    drafts: entriesIn(join(own.dataDir, "drafts")),
    cgroups: globSync(`/sys/fs/cgroup/{,*/}${group}/*/`).length,
    mounts: readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .filter((line) => line.includes(own.dataDir)).length,
    descriptors: entriesIn(`/proc/${pid}/fd`),
    zombies: processes.filter(({ parent, state }) => parent === pid && state === "Z").length,
    machines: own.machines().length,
    // Whatever the jail has started or a zygote has forked, and with it every namespace of ours.
    processesOfMachines: ofMachines.length,
    namespaces: new Set(ofMachines.flatMap(({ path }) => namespacesOf(path))).size,
    networkNamespaces: run("ip", "netns", "list")
      .split("\n")
      .filter((line) => line.includes("bhatti")).length,
  }
}

export function uidBaseOf({ dataDir }: Installation): number {
  return Number(/^uid_base: (\d+)/m.exec(readFileSync(join(dataDir, "config.yaml"), "utf8"))?.[1])
}

/** Processes of zygotes, of their trials, and of children that have no user of their own yet. */
export function processesOfZygotes(own: Installation): number[] {
  const first = uidBaseOf(own) + zygoteSlots.first
  return listProcesses()
    .filter(({ uid }) => uid >= first && uid < first + zygoteSlots.count)
    .map(({ path }) => Number(basename(path)))
}

/** Tells the lines that name an address of this network, a /24 or a larger one within a /16. */
function addressesIn(subnet: string): (line: string) => boolean {
  const [, first = "", third = "", length = ""] = /^(\d+\.\d+)\.(\d+)\.0\/(\d+)$/.exec(subnet) ?? []
  const blocks = 2 ** Math.max(0, 24 - Number(length))
  const prefixes = Array.from({ length: blocks }, (_, index) => `${first}.${Number(third) + index}.`)
  return (line) => prefixes.some((prefix) => line.includes(prefix))
}

function run(...command: string[]): string {
  return Bun.spawnSync(command).stdout.toString()
}

function entriesIn(directory: string): number {
  return existsSync(directory) ? readdirSync(directory).length : 0
}

/** A process that has ended has none any more. */
function namespacesOf(path: string): string[] {
  return ["user", "mnt", "pid", "ipc", "uts", "net"].flatMap((kind) => {
    try {
      return readlinkSync(join(path, "ns", kind))
    } catch {
      return []
    }
  })
}

type Process = { path: string; words: string; state: string; parent: number; uid: number }

function listProcesses(): Process[] {
  return globSync("/proc/[0-9]*/status").flatMap((file) => {
    const path = join(file, "..")
    try {
      const status = readFileSync(file, "utf8")
      const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1] ?? ""
      const words = readFileSync(join(path, "cmdline"), "utf8")
      const [parent, uid] = [Number(field("PPid")), Number(field("Uid"))]
      return [{ path, words, state: field("State"), parent, uid }]
    } catch (error) {
      // It may end while it is looked at.
      if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return []
      throw error
    }
  })
}
