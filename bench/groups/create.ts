/**
 * The life of a sandbox through the command line: create, first command, destroy. Once from a ready template and once
 * from the pool. A container does the same in two ways: `podman run --rm` with the command, and `podman run --detach`
 * then `podman rm --force`.
 */

import type { TimedCommand } from "../command.ts"
import type { Bench, Group } from "../group.ts"
import type { Podman } from "../podman.ts"
import { measureInTurns } from "../rounds.ts"
import type { Row, RowPromise } from "../row.ts"

const name = "bench"
const greeting = "hello"
const podmanAttemptsMax = 5

export const create: Group = {
  name: "create",
  summary: "create from a template, first command, destroy",
  settings: { pool: 0 },
  measure: (bench) =>
    measureLife(bench, "template", {
      create: { p50Max: 250, ratioMax: 0.5 },
      firstOutput: { p50Max: 200, ratioMax: 0.5 },
    }),
}

export const pool: Group = {
  name: "pool",
  summary: "create from the pool, first command, destroy",
  settings: { pool: 2 },
  measure: (bench) =>
    measureLife(bench, "pool", { create: { ratioMax: 0.5 }, firstOutput: { p50Max: 60, ratioMax: 0.15 } }),
}

async function measureLife(
  { bhatti, podman, rounds }: Bench,
  from: "template" | "pool",
  promises: { create?: RowPromise; firstOutput?: RowPromise },
): Promise<Row[]> {
  const samples = await measureInTurns(
    [
      async () => {
        await bhatti.poolIsReady()
        const created = await bhatti.cli("create", "--name", name)
        const first = await bhatti.cli("exec", name, "--", "echo", greeting)
        expectGreeting("bhatti", first.stdout)
        const destroyed = await bhatti.cli("destroy", name, "--yes")
        return {
          create: created.ms,
          firstOutput: created.ms + first.firstOutputMs,
          destroy: destroyed.ms,
          life: created.ms + first.ms + destroyed.ms,
        }
      },
      async () => {
        if (!podman) return {}
        await bhatti.poolIsReady()
        const run = await greetByPodman(podman)
        return { podmanFirstOutput: run.firstOutputMs, podmanLife: run.ms }
      },
      async () => {
        if (!podman) return {}
        await bhatti.poolIsReady()
        const run = await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
        const removed = await podman.remove(name)
        return { podmanCreate: run.ms, podmanRemove: removed.ms }
      },
    ],
    rounds,
  )
  const row = (
    what: string,
    ours: string,
    peer: { what: string; theirs: string },
    promise?: RowPromise,
  ): Row => ({
    what: `${what}, from the ${from}`,
    unit: "ms",
    samples: samples[ours] ?? [],
    peer: { what: peer.what, samples: samples[peer.theirs] ?? [] },
    ...(promise && { promise }),
  })
  return [
    row("create", "create", { what: "podman run --detach", theirs: "podmanCreate" }, promises.create),
    row(
      "create → first command's output",
      "firstOutput",
      { what: "podman run", theirs: "podmanFirstOutput" },
      promises.firstOutput,
    ),
    row(
      "destroy",
      "destroy",
      { what: "podman rm --force", theirs: "podmanRemove" },
      { p50Max: 50, ratioMax: 0.3 },
    ),
    row("create, one command, destroy", "life", { what: "podman run --rm", theirs: "podmanLife" }),
  ]
}

/** podman now and then misses the output of a command that ends at once; such a run is done again. */
async function greetByPodman(podman: Podman): Promise<TimedCommand> {
  for (let attempt = 1; ; attempt++) {
    const run = await podman.run(["--rm"], ["echo", greeting])
    if (run.stdout === "" && attempt < podmanAttemptsMax) continue
    expectGreeting("podman", run.stdout)
    return run
  }
}

function expectGreeting(who: string, stdout: string): void {
  if (stdout.trim() !== greeting) throw new Error(`the command in ${who} said ${JSON.stringify(stdout)}`)
}
