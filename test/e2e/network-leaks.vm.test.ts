/** A destroyed sandbox leaves no trace on the host, however many there were, with a pool and without. */

import { afterEach, expect, test } from "bun:test"
import { existsSync, globSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { siteOf } from "../../src/network/tap-network.ts"
import { type Installation, install, until } from "../support/installation.ts"

const cycles = Number(process.env["BHATTI_TEST_CYCLES"] ?? 8)
const lanes = 4

let own: Installation
afterEach(() => own[Symbol.asyncDispose](), 60_000)

function run(...command: string[]): string {
  return Bun.spawnSync(command).stdout.toString()
}

/** Returns this installation's holdings of the host: how many of each, and the rules as text. */
function holdings() {
  const { table, tapPrefix, anchor } = siteOf(own.dataDir)
  const config = readFileSync(join(own.dataDir, "config.yaml"), "utf8")
  const setting = (pattern: RegExp) => pattern.exec(config)?.[1] ?? ""
  const subnet = setting(/^subnet: (\d+\.\d+\.\d+)\./m)
  const uidBase = Number(setting(/^uid_base: (\d+)/m))
  expect([subnet, uidBase]).not.toContain("")
  const linesWith = (text: string) => text.split("\n").filter((line) => line.includes(`${subnet}.`)).length
  const links = readdirSync("/sys/class/net")
  const pid = own.daemonPid()
  const processes = listProcesses()
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
    cgroups: globSync(`/sys/fs/cgroup/{,*/}${group}/*/`).length,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    zombies: processes.filter(({ parent, state }) => parent === pid && state === "Z").length,
    machines: own.machines().length,
    // Whatever the jail has started, and with it every namespace of ours.
    processesOfMachines: processes.filter(({ uid }) => uid >= uidBase && uid < uidBase + 1000).length,
    networkNamespaces: run("ip", "netns", "list")
      .split("\n")
      .filter((line) => line.includes("bhatti")).length,
  }
}

type Process = { words: string; state: string; parent: number; uid: number }

function listProcesses(): Process[] {
  return globSync("/proc/[0-9]*/status").flatMap((path) => {
    try {
      const status = readFileSync(path, "utf8")
      const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1] ?? ""
      const words = readFileSync(join(path, "../cmdline"), "utf8")
      return [{ words, state: field("State"), parent: Number(field("PPid")), uid: Number(field("Uid")) }]
    } catch (error) {
      // It may end while it is looked at.
      if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return []
      throw error
    }
  })
}

async function cycle(name: string): Promise<void> {
  const policy = ["--egress", "deny", "--allow-host", `${name}.example.com`]
  const made = await own.bhatti(["create", "--name", name, ...policy])
  expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  expect((await own.bhatti(["destroy", "-y", name])).exitCode).toBe(0)
}

/** With no sandbox: nothing but the pool is there, and it rests. */
async function isQuiet(pool: number): Promise<boolean> {
  const { machines, processesOfMachines, taps, directories, nameServers, nameServerFiles, zombies } =
    holdings()
  // An ended machine stays a process until the host's first process has reaped it.
  const ofMachines = [machines, processesOfMachines, taps, directories].every((count) => count === pool)
  return ofMachines && nameServers + nameServerFiles + zombies === 0
}

test.each([0, 2])(
  `${cycles} sandboxes came and went, and all is as before: with a pool of %d`,
  async (pool) => {
    own = await install({ pool })
    // The first one makes what stays for good, and fills a pool.
    for (let number = 0; number < lanes; number++) await cycle(`first${number}`)
    await until("it is quiet before", () => isQuiet(pool), { deadlineMs: 120_000 })
    const { descriptors, ...before } = holdings()
    expect(before).toMatchObject({ taps: pool, machines: pool, processesOfMachines: pool, bridges: 1 })

    await Promise.all(
      Array.from({ length: lanes }, async (_, lane) => {
        for (let number = lane; number < cycles; number += lanes) await cycle(`s${number}`)
      }),
    )
    await until("it is quiet after", () => isQuiet(pool), { deadlineMs: 120_000 })
    const { descriptors: _, ...after } = holdings()
    expect(after).toEqual(before)
    // Connections that the API's clients have just left may still be closing.
    await until("the daemon's descriptors are as before", () => holdings().descriptors <= descriptors)
  },
  3_600_000,
)
