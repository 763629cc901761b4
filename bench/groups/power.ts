/**
 * Stopping a sandbox to disk and waking it by a command, memory and all. A container has no counterpart of the first;
 * the second is `podman start`, which begins anew, and `podman exec`.
 */

import { join } from "node:path"
import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

const name = "bench"
const dirtyMib = 16

export const power: Group = {
  name: "power",
  summary: "stop to disk, wake by a command",
  settings: { pool: 0 },
  async measure({ bhatti, podman, rounds }) {
    await using undo = new AsyncDisposableStack()
    const created = await bhatti.cli("create", "--name", name, "--json")
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))
    const { id } = JSON.parse(created.stdout) as { id: string }
    // A file in the guest's memory.
    await bhatti.cli("exec", name, "--", "sh", "-c", `head -c ${dirtyMib}M /dev/urandom > /dev/shm/own`)

    if (podman) {
      await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
      undo.defer(async () => void (await podman.remove(name)))
    }
    const wake = async () => (await bhatti.cli("exec", name, "--", "echo", "awake")).firstOutputMs

    const samples = await measureInTurns(
      [
        async () => {
          const stopped = await bhatti.cli("stop", name)
          return { stop: stopped.ms, wake: await wake() }
        },
        async () => {
          await bhatti.cli("stop", name)
          forgetPages(bhatti.sandboxDirectory(id))
          return { wakeFromDisk: await wake() }
        },
        async () => {
          if (!podman) return {}
          await podman.stop(name)
          const started = await podman.start(name)
          const first = await podman.exec(name, ["echo", "awake"])
          return { podman: started.ms + first.firstOutputMs }
        },
      ],
      rounds,
    )
    const peer = { what: "podman start + exec", samples: samples["podman"] ?? [] }
    return [
      {
        what: `stop to disk, ${dirtyMib} MB of its own in memory`,
        unit: "ms",
        samples: samples["stop"] ?? [],
        promise: { p50Max: 120 },
      },
      {
        what: "stopped → first command's output",
        unit: "ms",
        samples: samples["wake"] ?? [],
        peer,
        promise: { p50Max: 200, ratioMax: 0.5 },
      },
      {
        what: "stopped → first command's output, its files not in the page cache",
        unit: "ms",
        samples: samples["wakeFromDisk"] ?? [],
        promise: { p50Max: 350 },
      },
    ]
  },
}

/** Drops the files of a stopped sandbox from the host's page cache, and nothing of anybody else's. */
function forgetPages(directory: string): void {
  for (const file of ["disk.qcow2", "snapshot/memory", "snapshot/state", "snapshot/manifest.json"]) {
    const path = join(directory, file)
    const { exitCode, stderr } = Bun.spawnSync([
      "dd",
      `of=${path}`,
      "oflag=nocache",
      "conv=notrunc",
      "count=0",
    ])
    if (exitCode !== 0) throw new Error(stderr.toString())
  }
}
