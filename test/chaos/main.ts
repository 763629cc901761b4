/** `bun run chaos -- --minutes 20 --seed 7` runs chaos for as long as one likes. Needs root and `bun run build`. */

import { parseArgs } from "node:util"
import { chaos } from "./chaos.ts"

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: { minutes: { type: "string", default: "5" }, seed: { type: "string", default: "1" } },
})
const endsAt = performance.now() + Number(values.minutes) * 60_000
const result = await chaos({
  seed: Number(values.seed),
  isOver: () => performance.now() > endsAt,
  report: (line) => console.log(line),
})
console.log(`seed ${values.seed}: ${result.rounds} rounds, nothing lost, nothing left`, result.counts)
