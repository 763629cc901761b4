/**
 * Removes what interrupted runs have left: installations of tests whose test process is gone, with their daemons,
 * machines, name servers and networks. Installations without a note of their test process are left alone.
 */

import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { unlessMissing } from "../../src/lib/missing-files.ts"
import { isAlive, type ProcessIdentity } from "../../src/lib/process-identity.ts"
import { homePrefix, ownerFile, removeRemains } from "./installation.ts"

for (const home of globSync(`${homePrefix}*`)) {
  const note = unlessMissing(() => readFileSync(join(home, ownerFile), "utf8"))
  if (note === undefined || isAlive(JSON.parse(note) as ProcessIdentity)) continue
  console.log(`${home}: its test process is gone; removed`)
  await removeRemains(home)
}
