/**
 * Stopping a sandbox to disk and waking it by a command, memory and all. A container has no counterpart of the first; the
 * second is `podman start`, which begins anew, and `podman exec`.
 */

import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

const name = "bench"

export const power: Group = {
  name: "power",
  summary: "stop to disk, wake by a command",
  settings: { pool: 0 },
  async measure({ bhatti, podman, rounds }) {
    await using undo = new AsyncDisposableStack()
    await bhatti.cli("create", "--name", name)
    undo.defer(async () => void (await bhatti.cli("destroy", name, "--yes")))

    if (podman) {
      await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
      undo.defer(async () => void (await podman.remove(name)))
    }

    const samples = await measureInTurns(
      [
        async () => {
          const stopped = await bhatti.cli("stop", name)
          const woken = await bhatti.cli("exec", name, "--", "echo", "awake")
          return { stop: stopped.ms, wake: woken.firstOutputMs }
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
    return [
      { what: "stop to disk", unit: "ms", samples: samples["stop"] ?? [] },
      {
        what: "stopped → first command's output",
        unit: "ms",
        samples: samples["wake"] ?? [],
        peer: { what: "podman start + exec", samples: samples["podman"] ?? [] },
      },
    ]
  },
}
