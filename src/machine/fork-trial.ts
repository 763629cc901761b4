/** The result of the daemon's last trial fork, which it keeps for those who examine the host. */

import { join } from "node:path"
import { z } from "zod"
import { writeSynced } from "../lib/durable.ts"
import { parseJson } from "../lib/parse-json.ts"

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

function pathIn(dataDir: string): string {
  return join(dataDir, "fork-trial.json")
}
