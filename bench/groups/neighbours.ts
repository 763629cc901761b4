/**
 * What a sandbox and the API notice of a neighbour that uses up its own: the same requests beside one that rests and
 * beside one that computes, forks without end, or floods a reader. The claim is about the 95th percentiles.
 */

import type { Bench, Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"
import type { Row } from "../row.ts"

const name = "bench"
const neighbour = "bench-neighbour"
/** Requests in each round, of each kind. */
const requests = 5

const troubles = {
  computes: "while :; do :; done",
  forks: "while :; do /bin/true & done",
  floods: "yes",
}

export const neighbours: Group = {
  name: "neighbours",
  summary: "exec true and the API beside a neighbour that uses up what it has",
  settings: { pool: 0 },
  async measure(bench) {
    const { bhatti, rounds } = bench
    await using undo = new AsyncDisposableStack()
    for (const one of [name, neighbour]) {
      await bhatti.cli("create", "--name", one)
      undo.defer(async () => void (await bhatti.cli("destroy", one, "--yes")))
    }
    const kinds = Object.entries(troubles)
    const samples = await measureInTurns(
      [
        () => measureRequests(bench, "rests"),
        ...kinds.map(
          ([what, script]) =>
            () =>
              beside(bench, script, () => measureRequests(bench, what)),
        ),
      ],
      rounds,
    )
    return kinds.flatMap(([what]): Row[] => [
      {
        what: `exec true, the neighbour ${what}`,
        unit: "ms",
        samples: samples[`${what} exec`] ?? [],
        peer: { what: "it rests", samples: samples["rests exec"] ?? [] },
      },
      {
        what: `list sandboxes, the neighbour ${what}`,
        unit: "ms",
        samples: samples[`${what} list`] ?? [],
        peer: { what: "it rests", samples: samples["rests list"] ?? [] },
      },
    ])
  },
}

/** The slowest of a few, since it is the tail that a neighbour makes. */
async function measureRequests({ bhatti }: Bench, what: string): Promise<Record<string, number>> {
  const exec: number[] = []
  const list: number[] = []
  for (let count = 0; count < requests; count++) {
    exec.push((await bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })).ms)
    list.push((await bhatti.api("GET", "/sandboxes")).ms)
  }
  return { [`${what} exec`]: Math.max(...exec), [`${what} list`]: Math.max(...list) }
}

/** The script runs in the neighbour meanwhile, and is gone when this answers. */
async function beside<Value>({ bhatti }: Bench, script: string, work: () => Promise<Value>): Promise<Value> {
  const command = bhatti.installation.start(["exec", neighbour, "--", "sh", "-c", `echo begun; ${script}`])
  command.stdin.end()
  try {
    const reader = command.stdout.getReader()
    await reader.read()
    return await work()
  } finally {
    command.kill("SIGKILL")
    await command.exited
  }
}
