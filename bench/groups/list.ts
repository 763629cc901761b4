/** Every group, in the order in which they are measured. */

import type { Group } from "../group.ts"
import { burst, parallel, poolBurst } from "./burst.ts"
import { create, pool } from "./create.ts"
import { exec } from "./exec.ts"
import { footprint } from "./footprint.ts"
import { forks } from "./forks.ts"
import { neighbours } from "./neighbours.ts"
import { power } from "./power.ts"
import { published } from "./published.ts"
import { ratios } from "./ratios.ts"
import { scale } from "./scale.ts"
import { start } from "./start.ts"
import { transfer } from "./transfer.ts"

export const groups: readonly Group[] = [
  start,
  create,
  forks,
  pool,
  burst,
  poolBurst,
  exec,
  parallel,
  power,
  transfer,
  published,
  footprint,
  neighbours,
  scale,
  ratios,
]

/** The groups that `--check` measures by default: about a minute. */
export const checkedGroups: readonly string[] = [ratios.name]
