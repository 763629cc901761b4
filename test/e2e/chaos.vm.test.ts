/**
 * A short, bounded form of the chaos driver, which goes on until a machine and a daemon were killed; `bun run chaos` is
 * the long one. `KILLS=55` goes on until so many were killed.
 */

import { expect, test } from "bun:test"
import { chaos } from "../chaos/chaos.ts"

const seed = Number(process.env["SEED"] ?? 1)
const kills = Number(process.env["KILLS"] ?? 0)
const roundsMin = process.env["BHATTI_TEST_LONG"] === "1" ? 60 : 20

test(
  "machines and the daemon are killed and the disk fills up: nothing is lost, left over or changed",
  async () => {
    const lines: string[] = []
    try {
      const { counts } = await chaos({
        seed,
        isOver: (rounds, { machines, daemons }) =>
          rounds >= roundsMin && machines > 0 && daemons > 0 && machines + daemons >= kills,
        report: (line) => void lines.push(line),
      })
      expect(counts["trouble: daemon"]).toBeGreaterThan(0)
      expect(counts["trouble: machine"]).toBeGreaterThan(0)
    } catch (error) {
      throw new Error(`repeat with SEED=${seed}\n${lines.join("\n")}`, { cause: error })
    }
  },
  600_000 + kills * 60_000,
)
