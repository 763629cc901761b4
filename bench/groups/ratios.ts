/**
 * What `--check` looks at: only how measurements of one run compare, so that it means the same on every host. A create
 * beside a bare clone of the same template, and everything with one sandbox beside the same with many.
 */

import { limits } from "../../src/contract/limits.ts"
import type { Bhatti } from "../bhatti.ts"
import type { Group } from "../group.ts"
import { RawClones } from "../raw-clone.ts"
import { measureInTurns, type Subject } from "../rounds.ts"
import type { Row } from "../row.ts"

const greeting = ["echo", "hello"]
const many = 20
const rawRatioMax = 1.5
/** Twice, since a host of two processors has other things to do as well. */
const manyRatioMax = 2

export const ratios: Group = {
  name: "ratios",
  summary: "create beside a bare clone, one sandbox beside many",
  settings: { pool: 0, warmAfterSec: 1 },
  async measure({ bhatti, rounds }) {
    await using undo = new AsyncDisposableStack()
    const beside: string[] = ["one"]
    undo.defer(async () => void (await bhatti.cli("destroy", ...beside, "--yes")))
    await bhatti.api("POST", "/sandboxes", { name: "one", image: limits.imageDefault })
    const raw = await RawClones.open(bhatti)

    const few = await measureInTurns(
      [useOf(bhatti), async () => ({ raw: await raw.firstOutput(greeting) })],
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
        what: "create → first command's output, HTTP, from the template",
        unit: "ms",
        samples: few["create"] ?? [],
        peer: { what: "a bare clone", samples: few["raw"] ?? [] },
        promise: { ratioMax: rawRatioMax },
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
