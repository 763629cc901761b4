/**
 * Copying a large file in and out, next to `podman cp`, and what another client's command in the same sandbox notices
 * of it. Podman and the way out leave the file in the page cache of whoever gets it; on the way in it goes past the
 * guest's, to its disk.
 */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"
import { summarise } from "../statistics.ts"

const name = "bench"
const megabytes = 100
const roundsMax = 10
/** 60 MB/s. */
const p50Max = Math.round((megabytes / 60) * 1000)
/** Compares a command beside a copy with the same command in an idle sandbox. */
const besideRatioMax = 2
const idleCommands = 10

export const transfer: Group = {
  name: "transfer",
  summary: `${megabytes} MB in and out, and commands beside it`,
  settings: { pool: 0 },
  async measure({ bhatti, podman, rounds }) {
    await using undo = new AsyncDisposableStack()
    const directory = mkdtempSync(join(tmpdir(), "bhatti-bench-"))
    undo.defer(() => rmSync(directory, { recursive: true, force: true }))
    const file = join(directory, "file")
    const back = join(directory, "back")
    await Bun.write(file, randomBytes(megabytes * 1_000_000))

    await bhatti.cli("create", "--name", name)
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))
    if (podman) {
      await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
      undo.defer(async () => void (await podman.remove(name)))
    }
    const samples = await measureInTurns(
      [
        async () => {
          const up = await bhatti.cli("cp", file, `${name}:/workspace/file`)
          const down = await bhatti.cli("cp", `${name}:/workspace/file`, back)
          if (Bun.file(back).size !== megabytes * 1_000_000) throw new Error("another file came back")
          await bhatti.cli("exec", name, "--", "rm", "/workspace/file")
          rmSync(back)
          return { up: up.ms, down: down.ms }
        },
        async () => {
          if (!podman) return {}
          const up = await podman.copy(file, `${name}:/file`)
          const down = await podman.copy(`${name}:/file`, back)
          rmSync(back)
          return { podmanUp: up.ms, podmanDown: down.ms }
        },
        async () => {
          const command = async () => (await bhatti.cli("exec", name, "--", "true")).ms
          const idle: number[] = []
          while (idle.length < idleCommands) idle.push(await command())
          const besideUp = await during(bhatti.cli("cp", file, `${name}:/workspace/file`), command)
          const besideDown = await during(bhatti.cli("cp", `${name}:/workspace/file`, back), command)
          await bhatti.cli("exec", name, "--", "rm", "/workspace/file")
          rmSync(back)
          return { idle: summarise(idle).p50, besideUp, besideDown }
        },
      ],
      { ...rounds, rounds: Math.min(rounds.rounds, roundsMax), warmUps: 1 },
    )
    const row = (what: string, ours: string, theirs: string) => ({
      what: `${what} ${megabytes} MB`,
      unit: "ms" as const,
      samples: samples[ours] ?? [],
      peer: { what: "podman cp", samples: samples[theirs] ?? [] },
      promise: { p50Max, ratioMax: 2 },
    })
    const beside = (what: string, samples: number[] = []) => ({
      what: `exec true beside ${what}`,
      unit: "ms" as const,
      samples,
      peer: { what: "in an idle sandbox", samples: idle },
      promise: { ratioMax: besideRatioMax },
    })
    const { idle = [] } = samples
    return [
      row("upload", "up", "podmanUp"),
      row("download", "down", "podmanDown"),
      beside("an upload", samples["besideUp"]),
      beside("a download", samples["besideDown"]),
    ]
  },
}

/** The median time of commands that begin and end while the work goes on. */
async function during(work: Promise<unknown>, command: () => Promise<number>): Promise<number> {
  let isOver = false
  const over = () => {
    isOver = true
  }
  work.then(over, over)
  const times: number[] = []
  while (!isOver) {
    const ms = await command()
    if (!isOver) times.push(ms)
  }
  await work
  return summarise(times).p50
}

function randomBytes(count: number): Uint8Array {
  const bytes = new Uint8Array(count)
  const most = 65_536
  for (let at = 0; at < count; at += most) crypto.getRandomValues(bytes.subarray(at, at + most))
  return bytes
}
