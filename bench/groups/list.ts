/** Every group, in the order in which they are measured. */

import type { Group } from "../group.ts"
import { create, pool } from "./create.ts"
import { exec } from "./exec.ts"
import { footprint } from "./footprint.ts"
import { power } from "./power.ts"
import { start } from "./start.ts"

export const groups: readonly Group[] = [start, create, pool, exec, power, footprint]
