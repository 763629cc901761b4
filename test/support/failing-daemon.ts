/**
 * A daemon that fails where a test wants it to: the real one, from its source, with something between its core and the
 * host that counts the calls that pass. The file `fail-point.json` in the data directory says at which call what
 * happens.
 */

import { appendFileSync, existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import type { Guest, Host, Network, Zygotes } from "../../src/core/host.ts"
import { descriptorNamesOf, listPids } from "../../src/lib/process-identity.ts"
import { countMessages } from "./counted-messages.ts"

export type FailPoint = {
  /**
   * `nth` counts the calls of that name from 0, from when the file was written: calls of different names may come in
   * another order each time. If `call` is missing, calls are only written down.
   */
  call?: { name: string; nth: number }
  how: "kill before" | "kill after" | "kill zygotes after" | "kill both after" | "ENOSPC" | "EIO"
}

export const failPointFile = "fail-point.json"
export const callsFile = "calls.log"

/** Calls that change something or can fail; those that only look are left alone. */
const counted = {
  machines: [
    "start",
    "connect",
    "checkSnapshot",
    "pause",
    "resume",
    "saveSnapshot",
    "removeSnapshot",
    "kill",
  ],
  disks: ["createSandbox", "removeSandbox", "stampOf"],
  snapshots: ["begin", "copyAhead", "capture", "commit", "place", "remove"],
  templates: ["find"],
  pulls: ["resolve", "make", "makeOf"],
  packs: ["pack", "make", "push"],
} satisfies {
  [Part in "machines" | "templates" | "disks" | "snapshots" | "pulls" | "packs"]: (keyof Host[Part])[]
}
const countedOfZygotes: (keyof Zygotes)[] = ["start", "freeze", "try", "keepTrial", "end"]
const countedOfNetwork: (keyof Network)[] = ["attach", "linkUp", "detach"]
const countedOfGuest = ["waitReady", "personalise", "refresh", "quiesce"]

function failing(dataDir: string): (host: Host) => Host {
  const counts = new Map<string, number>()
  let armed = ""

  const point = (): FailPoint | undefined => {
    const path = join(dataDir, failPointFile)
    if (!existsSync(path)) return undefined
    const text = readFileSync(path, "utf8")
    if (text !== armed) {
      armed = text
      counts.clear()
    }
    return JSON.parse(text) as FailPoint
  }
  /** Counts the call, and returns how it is to fail. */
  const arrive = (name: string): FailPoint["how"] | undefined => {
    const fail = point()
    if (!fail) return undefined
    const nth = counts.get(name) ?? 0
    counts.set(name, nth + 1)
    appendFileSync(join(dataDir, callsFile), `${name}\n`)
    return fail.call?.name === name && fail.call.nth === nth ? fail.how : undefined
  }
  const before = (how: FailPoint["how"] | undefined) => {
    if (how === "kill before") die()
    if (how !== undefined && !how.startsWith("kill"))
      throw Object.assign(new Error(`${how}: made to fail`), { code: how })
  }
  const after = (how: FailPoint["how"] | undefined) => {
    if (how === "kill zygotes after" || how === "kill both after") killZygotes(dataDir)
    if (how === "kill after" || how === "kill both after") die()
  }
  const counting = async (
    name: string,
    call: () => unknown,
    change: (result: unknown) => unknown = (result) => result,
  ) => {
    const how = arrive(name)
    before(how)
    const result = await call()
    after(how)
    return change(result)
  }
  countMessages((name, send) => {
    const how = arrive(name)
    before(how)
    const result = send()
    after(how)
    return result
  })
  const wrap = <T extends object>(
    part: T,
    names: readonly string[],
    change?: (result: unknown) => unknown,
  ): T =>
    new Proxy(part, {
      get: (target, property: string) => {
        const method: unknown = Reflect.get(target, property, target)
        if (typeof method !== "function") return method
        return (...parameters: unknown[]) => {
          // A question to the guest has its own name.
          const [first] = parameters
          const name = property === "ask" ? (first as { op: string }).op : property
          const call = () => method.apply(target, parameters)
          return names.includes(name) ? counting(name, call, change) : call()
        }
      },
    })
  /** Starts and connections come with a guest, whose calls are counted too. */
  const withGuest = (result: unknown) => {
    if (typeof result !== "object" || result === null) return result
    if ("ask" in result) return wrap(result as Guest, countedOfGuest)
    return "guest" in result ? { ...result, guest: wrap(result.guest as Guest, countedOfGuest) } : result
  }
  return (host) => ({
    ...host,
    machines: wrap(host.machines, counted.machines, withGuest),
    templates: wrap(host.templates, counted.templates),
    disks: wrap(host.disks, counted.disks),
    snapshots: wrap(host.snapshots, counted.snapshots),
    pulls: wrap(host.pulls, counted.pulls),
    packs: wrap(host.packs, counted.packs),
    network: host.network && wrap(host.network, countedOfNetwork),
    zygotes: host.zygotes && wrap(host.zygotes, countedOfZygotes, withGuest),
  })
}

function die(): void {
  process.kill(process.pid, "SIGKILL")
}

/** Not their trials, which have a directory in theirs. */
function killZygotes(dataDir: string): void {
  const isZygote = (pid: number) =>
    descriptorNamesOf(pid).some((name) =>
      /^\/[^/]+\/disk\.qcow2$/.test(name.replace(join(dataDir, "zygotes"), "")),
    )
  for (const pid of listPids()) if (pid !== process.pid && isZygote(pid)) process.kill(pid, "SIGKILL")
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: process.argv.slice(2),
    options: { "data-dir": { type: "string" }, listen: { type: "string" } },
  })
  const { "data-dir": dataDir = "", listen = "" } = values
  const wrapHost = failing(dataDir)
  // The daemon's modules come after the function that changes them.
  const { serve } = await import("../../src/daemon.ts")
  await serve({ dataDir, listen }, { wrapHost })
}
