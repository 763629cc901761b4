/** `bhatti admin restore`. */

import { resolve } from "node:path"
import { defaultDataDir } from "../../contract/limits.ts"
import { hostCommand } from "../command.ts"
import { dataDirOption } from "../user-store.ts"

export const adminRestore = hostCommand({
  args: ["directory"],
  description: `DIRECTORY is what bhatti admin backup has made. The data directory must be empty or not there; move what is in one that is in use
away first, with its daemon and its sandboxes stopped. It may be a mount point or a symlink, and stays one. Every file is compared with what the backup says of it, and a data directory comes to be
whole or not at all. Sandboxes are stopped in it, and wake when they are used; users' keys and secrets are those of the backup.`,
  options: dataDirOption,
  examples: ["sudo bhatti admin restore /mnt/backup/bhatti-2026-01-31 && sudo systemctl start bhatti"],
  async run({ args, options, operator, isJson, out }) {
    const dataDir = resolve(options.dataDir ?? defaultDataDir)
    const { at, version } = await operator.restore({ from: resolve(args.directory), dataDir })
    if (isJson) return await out.json({ data_dir: dataDir, at, version })
    await out.result(`${dataDir} is as it was ${at}, with bhatti ${version}; start the daemon`)
  },
})
