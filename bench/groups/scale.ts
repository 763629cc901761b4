/**
 * The same things with more and more sandboxes beside: what they cost must not grow. Those beside are idle and paused,
 * as most are on a real host; at the end all of one half are running, and the daemon is started again.
 */

import type { Bhatti } from "../bhatti.ts"
import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"
import type { Row } from "../row.ts"
import { memoryOf } from "./footprint.ts"

const sizes = [1, 10, 50, 100]
const runningAtRestart = 50
const roundsMax = 20
const restarts = 3

export const scale: Group = {
  name: "scale",
  summary: `create, exec, list and the daemon with ${sizes.join(", ")} sandboxes`,
  settings: { pool: 0, warmAfterSec: 1 },
  async measure({ bhatti, rounds }) {
    const rows: Row[] = []
    const beside: string[] = []
    await using undo = new AsyncDisposableStack()
    undo.defer(async () => {
      if (beside.length > 0) await bhatti.cli("destroy", ...beside, "--yes")
    })
    const few = { ...rounds, rounds: Math.min(rounds.rounds, roundsMax), warmUps: 1 }
    let atOne: Record<string, number[]> | undefined
    for (const size of sizes) {
      while (beside.length < size) {
        const name = `beside-${beside.length}`
        beside.push(name)
        await bhatti.api("POST", "/sandboxes", { name })
      }
      const samples = await measureInTurns([() => measureOnce(bhatti, beside[0] ?? "")], few)
      samples["daemon"] = [memoryOf(bhatti.installation.daemonPid()).privateMib]
      atOne ??= samples
      rows.push(...rowsOf(size, samples, atOne))
      if (size === runningAtRestart) {
        const again = await measureInTurns([async () => ({ ms: await restart(bhatti, beside) })], {
          ...few,
          rounds: restarts,
          warmUps: 0,
        })
        rows.push({
          what: `daemon started again → ${size} running sandboxes have run a command, HTTP`,
          unit: "ms",
          samples: again["ms"] ?? [],
          promise: { p50Max: 1000 },
        })
      }
    }
    return rows
  },
}

async function measureOnce(bhatti: Bhatti, name: string): Promise<Record<string, number>> {
  const created = await bhatti.api("POST", "/sandboxes", { name: "bench" })
  await bhatti.api("DELETE", "/sandboxes/bench")
  const run = () => bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })
  // The first may wake it.
  await run()
  const executed = await run()
  const listed = await bhatti.api("GET", "/sandboxes")
  return { create: created.ms, exec: executed.ms, list: listed.ms }
}

function rowsOf(size: number, samples: Record<string, number[]>, atOne: Record<string, number[]>): Row[] {
  const row = (what: string, unit: Row["unit"], name: string, promise: Row["promise"]): Row => ({
    what: `${what} with ${size}`,
    unit,
    samples: samples[name] ?? [],
    ...(size > 1 && { peer: { what: "with 1", samples: atOne[name] ?? [] } }),
    ...(promise && { promise }),
  })
  const most = size === sizes.at(-1)
  return [
    row("create from the template, HTTP,", "ms", "create", undefined),
    row("exec true, HTTP,", "ms", "exec", undefined),
    row("list, HTTP,", "ms", "list", most ? { p50Max: 3 } : undefined),
    row("memory of the daemon, private,", "MiB", "daemon", most ? { p50Max: 120 } : undefined),
  ]
}

/** All of them are made to run first. */
async function restart(bhatti: Bhatti, names: string[]): Promise<number> {
  const runAll = () =>
    Promise.all(names.map((name) => bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })))
  await runAll()
  await bhatti.installation.stopDaemon("SIGKILL")
  const startedAt = performance.now()
  await bhatti.installation.startDaemon()
  await runAll()
  return performance.now() - startedAt
}
