/** Many at once: creates, and commands in one sandbox. The time is until the last of them has answered. */

import type { Bhatti } from "../bhatti.ts"
import type { Bench, Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"
import type { Row, RowPromise } from "../row.ts"

export const burstSize = 20
/** A round is twenty of everything. */
const roundsMax = 20
const names = Array.from({ length: burstSize }, (_, index) => `bench-${index}`)

export const burst: Group = {
  name: "burst",
  summary: `${burstSize} creates at once`,
  settings: { pool: 0 },
  measure: (bench) => measureBurst(bench, "from the template", { ratioMax: 0.5 }),
}

export const poolBurst: Group = {
  name: "pool-burst",
  summary: `${burstSize} creates at once from a pool of as many`,
  settings: { pool: burstSize },
  measure: (bench) => measureBurst(bench, "from the pool", { p50Max: 2500, ratioMax: 0.5 }),
}

export const parallel: Group = {
  name: "parallel",
  summary: `${burstSize} commands at once in one sandbox`,
  settings: { pool: 0 },
  async measure({ bhatti, podman, rounds }) {
    await using undo = new AsyncDisposableStack()
    const name = "bench"
    await bhatti.cli("create", "--name", name)
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))
    if (podman) {
      await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
      undo.defer(async () => void (await podman.remove(name)))
    }
    const samples = await measureInTurns(
      [
        async () => ({ cli: await timeAll(() => bhatti.cli("exec", name, "--", "true")) }),
        async () => ({
          api: await timeAll(() => bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })),
        }),
        async () => (podman ? { podman: await timeAll(() => podman.exec(name, ["true"])) } : {}),
      ],
      { ...rounds, rounds: Math.min(rounds.rounds, roundsMax) },
    )
    const peer = { what: `${burstSize} podman exec`, samples: samples["podman"] ?? [] }
    return [
      {
        what: `${burstSize} exec true at once, command line`,
        unit: "ms",
        samples: samples["cli"] ?? [],
        peer,
      },
      {
        what: `${burstSize} exec true at once, HTTP`,
        unit: "ms",
        samples: samples["api"] ?? [],
        peer,
        promise: { p50Max: 200, ratioMax: 0.2 },
      },
    ]
  },
}

async function measureBurst(
  { bhatti, podman, rounds }: Bench,
  from: string,
  promise: RowPromise,
): Promise<Row[]> {
  const samples = await measureInTurns(
    [
      async () => {
        await bhatti.poolIsReady()
        const ms = await timeAll((name) => bhatti.cli("create", "--name", name))
        await destroyAll(bhatti)
        return { create: ms }
      },
      async () => {
        if (!podman) return {}
        await bhatti.poolIsReady()
        const ms = await timeAll((name) => podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"]))
        for (const name of names) await podman.remove(name)
        return { podman: ms }
      },
    ],
    { ...rounds, rounds: Math.min(rounds.rounds, roundsMax) },
  )
  return [
    {
      what: `${burstSize} creates at once, ${from}`,
      unit: "ms",
      samples: samples["create"] ?? [],
      peer: { what: `${burstSize} podman run --detach`, samples: samples["podman"] ?? [] },
      promise,
    },
  ]
}

async function timeAll(one: (name: string) => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await Promise.all(names.map(one))
  return performance.now() - startedAt
}

async function destroyAll(bhatti: Bhatti): Promise<void> {
  await bhatti.cli("destroy", ...names, "--yes")
}
