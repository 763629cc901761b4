/**
 * Removes what interrupted runs have left: installations of tests whose test process is gone, with their daemons,
 * machines, name servers and networks, and worlds outside in which nothing runs any more. Installations without a note
 * of their test process are left alone.
 */

import { globSync, readFileSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { unlessMissing } from "../../src/lib/missing-files.ts"
import { isAlive, type ProcessIdentity } from "../../src/lib/process-identity.ts"
import { homePrefix, ownerFile, removeRemains } from "./installation.ts"
import { spacePrefix } from "./outside.ts"

/** A world that another run is making has no process for a moment. */
const youngMs = 60_000

for (const home of globSync(`${homePrefix}*`)) {
  const note = unlessMissing(() => readFileSync(join(home, ownerFile), "utf8"))
  if (note === undefined || isAlive(JSON.parse(note) as ProcessIdentity)) continue
  console.log(`${home}: its test process is gone; removed`)
  await removeRemains(home)
}

for (const path of globSync(`/run/netns/${spacePrefix}*`)) {
  const space = basename(path)
  const pids = Bun.spawnSync(["ip", "netns", "pids", space])
  const isYoung = Date.now() - statSync(path).mtimeMs < youngMs
  if (isYoung || pids.exitCode !== 0 || pids.stdout.toString().trim() !== "") continue
  console.log(`${space}: nothing runs in it; removed`)
  Bun.spawnSync(["ip", "netns", "delete", space])
}
