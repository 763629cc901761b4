/**
 * A group of measurements that share their preparation. Adding one: a file in `groups/`, a line in `groups/list.ts`.
 */

import type { Bhatti, Settings } from "./bhatti.ts"
import type { Podman } from "./podman.ts"
import type { RoundOptions } from "./rounds.ts"
import type { Row } from "./row.ts"

export type Bench = {
  bhatti: Bhatti
  podman: Podman | undefined
  rounds: RoundOptions
}

export type Group = {
  name: string
  summary: string
  settings: Settings
  /** Leaves no sandbox and no container behind. */
  measure(bench: Bench): Promise<Row[]>
}
