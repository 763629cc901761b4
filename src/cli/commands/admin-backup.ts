/** `bhatti admin backup`. */

import { resolve } from "node:path"
import { defaultDataDir } from "@bhatti/contract/limits"
import { hostCommand } from "../command.ts"
import { exitFailed } from "../exit-codes.ts"
import { dataDirOption } from "../user-store.ts"
import { sizeText } from "../words.ts"

const bytesPerMib = 1024 * 1024

export const adminBackup = hostCommand({
  args: ["directory"],
  description: `DIRECTORY must be empty or missing. Sandboxes keep running: each is copied as for a snapshot, memory and disk of the same
moment, with a short pause. In the backup all sandboxes are stopped; they wake with their memory if QEMU and processor are the same, and
boot from their disk otherwise. The backup contains all keys, age.key among them, so keep it as secret as the data directory. Exit code 1
if something could not be copied. disk_reserve_mb stays free on the disk of the data directory. If the disk of DIRECTORY becomes full,
the unfinished backup is removed.`,
  options: dataDirOption,
  examples: ["sudo bhatti admin backup /mnt/backup/bhatti-$(date +%F)"],
  async run({ args, options, operator, isJson, out }) {
    const done = await operator.backUp({
      dataDir: resolve(options.dataDir ?? defaultDataDir),
      directory: resolve(args.directory),
      report: (line) => void out.talk(line),
    })
    if (isJson) await out.json(done)
    else {
      const size = sizeText(Math.ceil(done.bytes / bytesPerMib))
      await out.result(`${done.directory}: ${done.sandboxes} sandboxes, ${done.snapshots} snapshots, ${size}`)
      for (const { what, reason } of done.failed) await out.result(`not in it: ${what}: ${reason}`)
    }
    return done.failed.length > 0 ? exitFailed : 0
  },
})
