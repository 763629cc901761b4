/**
 * Forked sandboxes: each thing is done by a daemon that forks its sandboxes, by one that clones them, and by podman, in
 * turns. All times are until an answer or an output has been read.
 */

import { Bhatti } from "../bhatti.ts"
import type { TimedCommand } from "../command.ts"
import type { Bench, Group } from "../group.ts"
import type { Podman } from "../podman.ts"
import { measureInTurns, type RoundOptions, type Subject } from "../rounds.ts"
import type { Row, RowPromise } from "../row.ts"
import { burstSize } from "./burst.ts"
import { memoryOf } from "./footprint.ts"

const name = "bench"
const greeting = ["echo", "hello"]
const copies = 10
const idleSandboxes = 10
/** A round is twenty of everything, or ten. */
const burstRoundsMax = 20
/** The guest's last command is written back and its kernel's timers run out. */
const settleMs = 3000
const podmanAttemptsMax = 5

type Subjects = { forked: Bhatti; cloned: Bhatti; podman: Podman | undefined }
type Samples = Record<string, number[]>

export const forks: Group = {
  name: "forks",
  summary: "forked sandboxes beside cloned ones and podman",
  settings: { pool: 0, forks: "auto" },
  async measure({ bhatti, podman, rounds }: Bench): Promise<Row[]> {
    await using cloned = await Bhatti.start({ binary: bhatti.binary, settings: { pool: 0, forks: "off" } })
    const subjects: Subjects = { forked: bhatti, cloned, podman }
    const few = { ...rounds, rounds: Math.min(rounds.rounds, burstRoundsMax) }
    const rows = [
      ...(await measureLife(subjects, rounds)),
      ...(await measurePower(subjects, rounds)),
      ...(await measureBursts(subjects, few)),
      ...(await measureCopies(subjects, few)),
      ...(await measureMemory(subjects)),
    ]
    const leftovers = await cloned.leftovers()
    if (leftovers.length > 0) throw new Error(`left behind: ${leftovers.join(", ")}`)
    return rows
  },
}

/** Create, first command and destroy, by the command line and over HTTP. */
async function measureLife(subjects: Subjects, rounds: RoundOptions): Promise<Row[]> {
  const ofBhatti =
    (who: "forked" | "cloned"): Subject =>
    async () => {
      const bhatti = subjects[who]
      const created = await bhatti.cli("create", "--name", name)
      const first = await bhatti.cli("exec", name, "--", ...greeting)
      expectGreeting(first.stdout)
      const destroyed = await bhatti.cli("destroy", name, "--yes")
      const createdOverHttp = await bhatti.api("POST", "/sandboxes", { name })
      const firstOverHttp = await bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: greeting })
      await bhatti.api("DELETE", `/sandboxes/${name}`)
      return {
        [`${who} output`]: created.ms + first.firstOutputMs,
        [`${who} destroy`]: destroyed.ms,
        [`${who} create`]: createdOverHttp.ms,
        [`${who} life`]: createdOverHttp.ms + firstOverHttp.ms,
      }
    }
  const ofPodman: Subject = async () => {
    const { podman } = subjects
    if (!podman) return {}
    const run = await greetByPodman(podman)
    const started = await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
    const removed = await podman.remove(name)
    return { "podman output": run.firstOutputMs, "podman create": started.ms, "podman destroy": removed.ms }
  }
  const samples = await measureInTurns([ofBhatti("forked"), ofBhatti("cloned"), ofPodman], rounds)
  const output = "create → first command's output, command line"
  return [
    ...compared(samples, "output", output, "podman run", { p50Max: 60, ratioMax: 0.2 }),
    ...compared(samples, "create", "create, HTTP", "podman run --detach", { p50Max: 25 }),
    ...compared(samples, "life", "create → first command's output, HTTP", undefined),
    ...compared(samples, "destroy", "destroy, command line", "podman rm --force", {
      p50Max: 30,
      ratioMax: 0.25,
    }),
  ]
}

async function measurePower(subjects: Subjects, rounds: RoundOptions): Promise<Row[]> {
  await using undo = new AsyncDisposableStack()
  const ofBhatti = async (who: "forked" | "cloned"): Promise<Subject> => {
    const bhatti = subjects[who]
    await bhatti.api("POST", "/sandboxes", { name })
    undo.defer(async () => void (await bhatti.api("DELETE", `/sandboxes/${name}`)))
    await bhatti.cli("exec", name, "--", ...greeting)
    return async () => {
      const stopped = await bhatti.api("POST", `/sandboxes/${name}/stop`)
      const woken = await bhatti.cli("exec", name, "--", ...greeting)
      return { [`${who} stop`]: stopped.ms, [`${who} wake`]: woken.firstOutputMs }
    }
  }
  const { podman } = subjects
  if (podman) {
    await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
    undo.defer(async () => void (await podman.remove(name)))
  }
  const ofPodman: Subject = async () => {
    if (!podman) return {}
    await podman.stop(name)
    const started = await podman.start(name)
    const first = await podman.exec(name, greeting)
    return { "podman wake": started.ms + first.firstOutputMs }
  }
  const samples = await measureInTurns([await ofBhatti("forked"), await ofBhatti("cloned"), ofPodman], rounds)
  const promise = { p50Max: 110, ratioMax: 1.2 }
  return [
    ...compared(
      samples,
      "wake",
      "stopped → first command's output, command line",
      "podman start + exec",
      promise,
    ),
    ...compared(samples, "stop", "stop to disk, HTTP", undefined),
  ]
}

/** Until the first command of the last of them has answered. */
async function measureBursts(subjects: Subjects, rounds: RoundOptions): Promise<Row[]> {
  const names = Array.from({ length: burstSize }, (_, index) => `${name}-${index}`)
  const ofBhatti =
    (who: "forked" | "cloned"): Subject =>
    async () => {
      const bhatti = subjects[who]
      const ms = await timeAll(names, async (one) => {
        await bhatti.api("POST", "/sandboxes", { name: one })
        await bhatti.api("POST", `/sandboxes/${one}/exec`, { cmd: greeting })
      })
      await bhatti.cli("destroy", ...names, "--yes")
      return { [`${who} burst`]: ms }
    }
  const ofPodman: Subject = async () => {
    const { podman } = subjects
    return podman ? { "podman burst": await timeAll(names, () => podman.run(["--rm"], greeting)) } : {}
  }
  const samples = await measureInTurns([ofBhatti("forked"), ofBhatti("cloned"), ofPodman], rounds)
  const what = `${burstSize} creates at once → all have answered a command, HTTP`
  return compared(samples, "burst", what, `${burstSize} podman run`, { p50Max: 300, ratioMax: 0.25 })
}

/** A running sandbox, copied. podman has no counterpart without CRIU. */
async function measureCopies(subjects: Subjects, rounds: RoundOptions): Promise<Row[]> {
  await using undo = new AsyncDisposableStack()
  const ofBhatti = async (who: "forked" | "cloned"): Promise<Subject> => {
    const bhatti = subjects[who]
    await bhatti.api("POST", "/sandboxes", { name })
    undo.defer(async () => void (await bhatti.api("DELETE", `/sandboxes/${name}`)))
    return async () => {
      const startedAt = performance.now()
      const { reply } = await bhatti.api("POST", "/sandboxes/batch", {
        from: name,
        count: copies,
      })
      const ids = (reply as { id: string }[]).map(({ id }) => id)
      await timeAll(ids, (id) => bhatti.api("POST", `/sandboxes/${id}/exec`, { cmd: greeting }))
      const ms = performance.now() - startedAt
      await bhatti.cli("destroy", ...ids, "--yes")
      return { [`${who} copies`]: ms }
    }
  }
  const samples = await measureInTurns([await ofBhatti("forked"), await ofBhatti("cloned")], rounds)
  const what = `fork of a running sandbox × ${copies} → all have answered a command, HTTP`
  return compared(samples, "copies", what, undefined, { p50Max: 1000 })
}

/** After a first command, when they are idle. All processes of a sandbox count: of ours there is one. */
async function measureMemory({ forked, cloned, podman }: Subjects): Promise<Row[]> {
  await using undo = new AsyncDisposableStack()
  const samples: Samples = {}
  const names = Array.from({ length: idleSandboxes }, (_, index) => `${name}-${index}`)
  for (const bhatti of [forked, cloned]) {
    undo.defer(async () => void (await bhatti.cli("destroy", ...names, "--yes")))
    for (const one of names) {
      await bhatti.api("POST", "/sandboxes", { name: one })
      await bhatti.api("POST", `/sandboxes/${one}/exec`, { cmd: greeting })
    }
  }
  for (const one of podman ? names : []) {
    undo.defer(async () => void (await podman?.remove(one)))
    await podman?.run(["--detach", `--name=${one}`], ["sleep", "infinity"])
    await podman?.exec(one, greeting)
  }
  await Bun.sleep(settleMs)
  const privateMib = (pids: number[]) => pids.reduce((sum, pid) => sum + memoryOf(pid).privateMib, 0)
  samples["forked memory"] = forked.installation.machines().map((pid) => privateMib([pid]))
  samples["cloned memory"] = cloned.installation.machines().map((pid) => privateMib([pid]))
  samples["podman memory"] = []
  for (const one of podman ? names : [])
    samples["podman memory"].push(privateMib((await podman?.pidsOf(one)) ?? []))
  const what = "memory of one more idle sandbox, private, all its processes"
  // 6 MB.
  return compared(samples, "memory", what, "sleep in a container and its conmon", { p50Max: 5.72 }, "MiB")
}

/** Rows of one measurement: forked beside podman, cloned beside podman, forked beside cloned. */
function compared(
  samples: Samples,
  key: string,
  what: string,
  podman: string | undefined,
  promise?: RowPromise,
  unit: Row["unit"] = "ms",
): Row[] {
  const of = (who: string) => samples[`${who} ${key}`] ?? []
  const theirs = podman === undefined ? undefined : { what: podman, samples: of("podman") }
  return [
    {
      ...{ what: `${what}, forked`, unit, samples: of("forked") },
      ...(theirs && { peer: theirs }),
      ...(promise && { promise }),
    },
    { ...{ what: `${what}, cloned`, unit, samples: of("cloned") }, ...(theirs && { peer: theirs }) },
    {
      ...{ what: `${what}, forked beside cloned`, unit, samples: of("forked") },
      peer: { what: "cloned", samples: of("cloned") },
    },
  ]
}

async function timeAll<T>(all: readonly T[], one: (each: T) => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await Promise.all(all.map(one))
  return performance.now() - startedAt
}

/** podman now and then misses the output of a command that ends at once; such a run is done again. */
async function greetByPodman(podman: Podman): Promise<TimedCommand> {
  for (let attempt = 1; ; attempt++) {
    const run = await podman.run(["--rm"], greeting)
    if (run.stdout === "" && attempt < podmanAttemptsMax) continue
    expectGreeting(run.stdout)
    return run
  }
}

function expectGreeting(stdout: string): void {
  if (stdout.trim() !== greeting[1]) throw new Error(`the command said ${JSON.stringify(stdout)}`)
}
