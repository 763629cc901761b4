/** `true` in a sandbox that is in use: through the command line, and as one request to the HTTP interface. */

import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

const name = "bench"

export const exec: Group = {
  name: "exec",
  summary: "a command in a sandbox that is in use",
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
        async () => ({ cli: (await bhatti.cli("exec", name, "--", "true")).ms }),
        async () => {
          const { ms, reply } = await bhatti.api("POST", `/sandboxes/${name}/exec`, { cmd: ["true"] })
          const { exit_code } = reply as { exit_code: number }
          if (exit_code !== 0) throw new Error(`true ended with ${exit_code}`)
          return { api: ms }
        },
        async () => (podman ? { podman: (await podman.exec(name, ["true"])).ms } : {}),
      ],
      rounds,
    )
    const peer = { what: "podman exec", samples: samples["podman"] ?? [] }
    return [
      {
        what: "exec true, command line",
        unit: "ms",
        samples: samples["cli"] ?? [],
        peer,
        promise: { p50Max: 20, ratioMax: 0.15 },
      },
      {
        what: "exec true, HTTP",
        unit: "ms",
        samples: samples["api"] ?? [],
        peer,
        promise: { p50Max: 12, ratioMax: 0.15 },
      },
    ]
  },
}
