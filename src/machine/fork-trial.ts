/** The result of the daemon's last trial fork, which it keeps for those who examine the host. */

import { join } from "node:path"
import { z } from "zod"
import { writeSynced } from "../lib/durable.ts"
import { parseJson } from "../lib/parse-json.ts"
import { type Check, ok, warn } from "../lib/preflight.ts"

const Kept = z.object({ works: z.boolean(), reason: z.string().nullable(), build: z.string() })

export type ForkTrial = { works: boolean; reason: string | null }
export type KeptTrial = z.infer<typeof Kept>

export async function writeTrial(dataDir: string, trial: KeptTrial): Promise<void> {
  await writeSynced(pathIn(dataDir), JSON.stringify(trial), "w")
}

export async function readTrial(dataDir: string): Promise<KeptTrial | undefined> {
  const file = Bun.file(pathIn(dataDir))
  return (await file.exists()) ? Kept.safeParse(parseJson(await file.text())).data : undefined
}

type Wanted = {
  /** The operator's setting permits forks. */
  isWanted: boolean
  /** Machines have users and namespaces of their own. */
  areApart: boolean
  /** Limit on the clones of a size that wait. */
  pool: number
}

/** The doctor's check. */
export function checkForks(trial: KeptTrial | undefined, { isWanted, areApart, pool }: Wanted): Check {
  const area = "forks"
  const cloned = `new sandboxes are cloned${pool > 0 ? ", and some wait in the pool" : ""}`
  if (!isWanted) return ok(area, `off in config.yaml: ${cloned}`)
  if (!areApart) return ok(area, `${cloned}: machines have no users and namespaces of their own here`)
  if (!trial)
    return ok(area, "no trial yet: the daemon makes one after the first create under software emulation")
  if (trial.works) return ok(area, `new sandboxes are forked from ${trial.build}, and none waits in a pool`)
  return warn(
    area,
    `${cloned}, since ${trial.build} was not forked: ${trial.reason}`,
    "they work as well and start slower; forks: off in config.yaml ends the attempts",
  )
}

function pathIn(dataDir: string): string {
  return join(dataDir, "fork-trial.json")
}
