/**
 * The life of a sandbox from a ready template, through the command line: create, first command, destroy. A container
 * does the same in two ways: `podman run --rm` with the command, and `podman run --detach` then `podman rm --force`.
 */

import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

const name = "bench"
const greeting = "hello"

export const create: Group = {
  name: "create",
  summary: "create, first command, destroy",
  async measure({ bhatti, podman, rounds }) {
    const samples = await measureInTurns(
      [
        async () => {
          const created = await bhatti.cli("create", "--name", name)
          const first = await bhatti.cli("exec", name, "--", "echo", greeting)
          expectGreeting(first.stdout)
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
          const run = await podman.run(["--rm"], ["echo", greeting])
          expectGreeting(run.stdout)
          return { podmanFirstOutput: run.firstOutputMs, podmanLife: run.ms }
        },
        async () => {
          if (!podman) return {}
          const run = await podman.run(["--detach", `--name=${name}`], ["sleep", "infinity"])
          const removed = await podman.remove(name)
          return { podmanCreate: run.ms, podmanRemove: removed.ms }
        },
      ],
      rounds,
    )
    const of = (key: string) => samples[key] ?? []
    return [
      {
        what: "create",
        unit: "ms",
        samples: of("create"),
        peer: { what: "podman run --detach", samples: of("podmanCreate") },
        promise: { p50Max: 250, ratioMax: 0.5 },
      },
      {
        what: "create → first command's output",
        unit: "ms",
        samples: of("firstOutput"),
        peer: { what: "podman run", samples: of("podmanFirstOutput") },
        promise: { ratioMax: 0.5 },
      },
      {
        what: "destroy",
        unit: "ms",
        samples: of("destroy"),
        peer: { what: "podman rm --force", samples: of("podmanRemove") },
      },
      {
        what: "create, one command, destroy",
        unit: "ms",
        samples: of("life"),
        peer: { what: "podman run --rm", samples: of("podmanLife") },
      },
    ]
  },
}

function expectGreeting(stdout: string): void {
  if (stdout.trim() !== greeting) throw new Error(`the command said ${JSON.stringify(stdout)}`)
}
