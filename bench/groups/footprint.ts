/** The memory and disk that one more idle sandbox costs the host, after it has run one command. */

import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Group } from "../group.ts"

const sandboxesMax = 10
/** The guest's last command is written back and its kernel's timers run out. */
const settleMs = 3000

const mebibyte = 1024 * 1024
/** 30 MB and 1 MB. */
const memoryMibMax = 28.6
const diskMibMax = 0.95

export const footprint: Group = {
  name: "footprint",
  summary: "memory and disk of an idle sandbox",
  settings: { pool: 0 },
  async measure({ bhatti, rounds }) {
    await using undo = new AsyncDisposableStack()
    const ids: string[] = []
    for (let index = 0; index < Math.min(sandboxesMax, rounds.rounds); index++) {
      const created = await bhatti.cli("create", "--name", `bench-${index}`, "--json")
      const { id } = JSON.parse(created.stdout) as { id: string }
      undo.defer(async () => void (await bhatti.cli("destroy", id, "--yes")))
      await bhatti.cli("exec", id, "--", "true")
      ids.push(id)
    }
    await Bun.sleep(settleMs)

    const machines = bhatti.installation.machines().map(memoryOf)
    const daemon = memoryOf(bhatti.installation.daemonPid())
    return [
      {
        what: "memory of one more sandbox, private",
        unit: "MiB",
        samples: machines.map((one) => one.privateMib),
        promise: { p50Max: memoryMibMax },
      },
      {
        what: "memory of one more sandbox, with its share of what is shared (Pss)",
        unit: "MiB",
        samples: machines.map((one) => one.proportionalMib),
      },
      {
        what: "disk of one more sandbox",
        unit: "MiB",
        samples: ids.map((id) => diskMib(bhatti.sandboxDirectory(id))),
        promise: { p50Max: diskMibMax },
      },
      { what: `memory of the daemon with ${ids.length}, private`, unit: "MiB", samples: [daemon.privateMib] },
    ]
  },
}

export function memoryOf(pid: number): { privateMib: number; proportionalMib: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8")
  const mib = (field: string) => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]
    if (kib === undefined) throw new Error(`no ${field} of process ${pid}`)
    return Number(kib) / 1024
  }
  return { privateMib: mib("Private_Clean") + mib("Private_Dirty"), proportionalMib: mib("Pss") }
}

/** Blocks in use, not sizes: disks are sparse. */
function diskMib(directory: string): number {
  const bytes = readdirSync(directory, { recursive: true, encoding: "utf8" })
    .map((name) => statSync(join(directory, name)).blocks * 512)
    .reduce((sum, one) => sum + one, statSync(directory).blocks * 512)
  return bytes / mebibyte
}
