/** `bhatti admin restore`. */

import { resolve } from "node:path"
import { defaultDataDir } from "@bhatti/contract/limits"
import { hostCommand } from "../command.ts"
import { dataDirOption } from "../user-store.ts"

export const adminRestore = hostCommand({
  args: ["directory"],
  description: `DIRECTORY is a backup made by bhatti admin backup. The data directory must be empty or missing; to replace one that is in use, stop its
daemon and its sandboxes and move its contents away first. It may be a mount point or a symlink, and stays one. Every file is compared
with the backup's manifest, and the data directory is restored completely or not at all. Its sandboxes are stopped and wake when they are
used; users' keys and secrets are those of the backup.`,
  options: dataDirOption,
  examples: ["sudo bhatti admin restore /mnt/backup/bhatti-2026-01-31 && sudo systemctl start bhatti"],
  async run({ args, options, operator, isJson, out }) {
    const dataDir = resolve(options.dataDir ?? defaultDataDir)
    const { at, version } = await operator.restore({
      from: resolve(args.directory),
      dataDir,
      report: (line) => void out.talk(line),
    })
    if (isJson) return await out.json({ data_dir: dataDir, at, version })
    await out.result(`${dataDir} is as it was ${at}, with bhatti ${version}; start the daemon`)
  },
})
