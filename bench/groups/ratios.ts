/**
 * Ratios for `--check`: it compares only measurements of one run, so that it means the same on every host. A create
 * beside a bare clone of the same template, everything with one sandbox beside the same with many, and where podman is
 * installed a command beside one of its.
 */

import { limits } from "@bhatti/contract/limits"
import type { Bhatti } from "../bhatti.ts"
import type { Group } from "../group.ts"
import { RawClones } from "../raw-clone.ts"
import { measureInTurns, type Subject } from "../rounds.ts"
import type { Row } from "../row.ts"

const greeting = ["echo", "hello"]
const container = "bench"
const many = 50
/** A fork beside a clone takes 0.4 on an idle host, and more where others need its processors. */
const rawRatioMax = 0.75
const podmanRatioMax = 0.5
/** Twice, since a host of two processors has other things to do as well. */
const manyRatioMax = 2

export const ratios: Group = {
  name: "ratios",
  summary: "create beside a bare clone, one sandbox beside many, a command beside podman's",
  settings: { pool: 0, warmAfterSec: 1, forks: "auto" },
  async measure({ bhatti, podman, rounds }) {
    await using undo = new AsyncDisposableStack()
    const beside: string[] = ["one"]
    undo.defer(async () => void (await bhatti.cli("destroy", ...beside, "--yes")))
    await bhatti.api("POST", "/sandboxes", { name: "one", image: limits.imageDefault })
    const raw = await RawClones.open(bhatti)

    if (podman) {
      await podman.run(["--detach", `--name=${container}`], ["sleep", "infinity"])
      undo.defer(async () => void (await podman.remove(container)))
    }

    const few = await measureInTurns(
      [
        useOf(bhatti),
        async () => ({ raw: await raw.firstOutput(greeting) }),
        async () => ({ command: (await bhatti.cli("exec", "one", "--", "true")).ms }),
        async () => (podman ? { podman: (await podman.exec(container, ["true"])).ms } : {}),
      ],
      rounds,
    )
    while (beside.length < many) {
      const name = `beside-${beside.length}`
      beside.push(name)
      await bhatti.api("POST", "/sandboxes", { name })
    }
    const crowded = await measureInTurns([useOf(bhatti)], rounds)

    const row = (what: string, name: string): Row => ({
      what: `${what}, with ${many} sandboxes`,
      unit: "ms",
      samples: crowded[name] ?? [],
      peer: { what: "with one", samples: few[name] ?? [] },
      promise: { ratioMax: manyRatioMax },
    })
    return [
      {
        what: "create → first command's output, HTTP, forked",
        unit: "ms",
        samples: few["create"] ?? [],
        peer: { what: "a bare clone", samples: few["raw"] ?? [] },
        promise: { ratioMax: rawRatioMax },
      },
      {
        what: "exec true, command line",
        unit: "ms",
        samples: few["command"] ?? [],
        peer: { what: "podman exec", samples: few["podman"] ?? [] },
        promise: { ratioMax: podmanRatioMax },
      },
      row("create → first command's output, HTTP", "create"),
      row("exec true, HTTP", "exec"),
    ]
  },
}

function useOf(bhatti: Bhatti): Subject {
  return async () => {
    const created = await bhatti.api("POST", "/sandboxes", { name: "bench" })
    const first = await bhatti.api("POST", "/sandboxes/bench/exec", { cmd: greeting })
    await bhatti.api("DELETE", "/sandboxes/bench")
    const run = () => bhatti.api("POST", "/sandboxes/one/exec", { cmd: ["true"] })
    // The first may wake it.
    await run()
    return { create: created.ms + first.ms, exec: (await run()).ms }
  }
}
