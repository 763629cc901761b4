/** Nothing of a sandbox's network stays when it is gone, however many there were, and whatever else is in use. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { siteOf } from "../../src/network/tap-network.ts"
import { type Installation, install, until } from "../support/installation.ts"

const cycles = Number(process.env["BHATTI_TEST_CYCLES"] ?? 40)

let own: Installation
beforeAll(async () => {
  own = await install()
}, 600_000)
afterAll(() => own[Symbol.asyncDispose](), 60_000)

function run(...command: string[]): string {
  return Bun.spawnSync(command).stdout.toString()
}

/** All that this installation has of the host, as text or count. */
function holdings() {
  const { table, tapPrefix } = siteOf(own.dataDir)
  const subnet = /^subnet: (\d+\.\d+\.\d+)\./m.exec(
    readFileSync(join(own.dataDir, "config.yaml"), "utf8"),
  )?.[1]
  if (subnet === undefined) throw new Error("the installation has no subnet of its own")
  const linesWith = (text: string) =>
    text
      .split("\n")
      .filter((line) => line.includes(`${subnet}.`))
      .sort()
  const pid = own.daemonPid()
  const isChildOf = (entry: string) => {
    const stat = statOf(entry)
    return stat?.[1] === String(pid) ? [stat[0]] : []
  }
  return {
    taps: readdirSync("/sys/class/net").filter((name) => name.startsWith(tapPrefix)),
    // Counts of connections fall out of their set by themselves.
    rules: run("nft", "list", "table", "inet", table).replace(/set connections \{[^}]*\}/s, ""),
    arpRules: run("nft", "list", "table", "arp", table),
    routes: linesWith(run("ip", "route", "show", "table", "all")),
    neighbours: linesWith(run("ip", "neighbour", "show", "nud", "all")),
    nameServers: existsSync(`/run/${table}`) ? readdirSync(`/run/${table}`) : [],
    directories: readdirSync(join(own.dataDir, "sandboxes")),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    zombies: readdirSync("/proc")
      .flatMap(isChildOf)
      .filter((state) => state === "Z").length,
    machines: own.machines().length,
  }
}

/** State and parent of a process. */
function statOf(entry: string): [string, string] | undefined {
  if (!/^\d+$/.test(entry) || !existsSync(`/proc/${entry}/stat`)) return undefined
  const stat = run("cat", `/proc/${entry}/stat`)
  const [state = "", parent = ""] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return [state, parent]
}

async function cycle(name: string): Promise<void> {
  const made = await own.bhatti([
    "create",
    "--name",
    name,
    "--egress",
    "deny",
    "--allow-host",
    `${name}.example.com`,
  ])
  expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  expect((await own.bhatti(["destroy", "-y", name])).exitCode).toBe(0)
}

test(`${cycles} sandboxes came and went, and all is as before`, async () => {
  await cycle("first")
  const isQuiet = () => holdings().nameServers.length === 0
  await until("the last name server is gone", isQuiet, { deadlineMs: 60_000 })
  const before = holdings()
  expect(before).toMatchObject({ taps: [], nameServers: [], directories: [], machines: 0, zombies: 0 })
  const last = Array.from({ length: 4 }, async (_, lane) => {
    for (let number = lane; number < cycles; number += 4) await cycle(`s${number}`)
  })
  await Promise.all(last)
  await until("the last name server is gone", isQuiet, { deadlineMs: 60_000 })
  const { descriptors, ...rest } = holdings()
  const { descriptors: descriptorsBefore, ...restBefore } = before
  expect(rest).toEqual(restBefore)
  // Connections that the API's clients have just left may still be closing.
  await until("the daemon's descriptors are as before", () => holdings().descriptors <= descriptorsBefore)
  expect(descriptors).toBeGreaterThan(0)
}, 1_200_000)
