/**
 * Measures the cost of every command before it does anything: the start of the command line, beside that of the
 * smallest possible program.
 */

import { timeCommand } from "../command.ts"
import type { Group } from "../group.ts"
import { measureInTurns } from "../rounds.ts"

export const start: Group = {
  name: "start",
  summary: "start of the command line",
  settings: { pool: 0 },
  async measure({ bhatti, rounds }) {
    const samples = await measureInTurns(
      [
        async () => ({ version: (await bhatti.cli("version")).ms }),
        async () => ({ empty: (await timeCommand(["/bin/true"], { env: {}, cwd: "/" })).ms }),
      ],
      rounds,
    )
    return [
      { what: "bhatti version", unit: "ms", samples: samples["version"] ?? [], promise: { p50Max: 12 } },
      { what: "/bin/true on the host (floor of every command)", unit: "ms", samples: samples["empty"] ?? [] },
    ]
  },
}
