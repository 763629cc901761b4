/** `bhatti admin recover`. */

import { defaultDataDir } from "@bhatti/contract/limits"
import { hostCommand } from "../command.ts"
import { dataDirOption } from "../user-store.ts"

export const adminRecover = hostCommand({
  description: `For a data directory whose database is missing, damaged, older than the rest, or from another installation. The daemon must not run;
sandboxes may, and are found again. The command takes the newest database it finds, from DATA_DIR/database-copies if necessary, and adds
the row stored beside the disk of each sandbox and snapshot. Users missing from every database get new keys, printed once. Disks and
memory stay unchanged; a replaced database moves to DATA_DIR/set-aside. With an ID it also brings that sandbox or snapshot back from
there.`,
  optionalArgs: ["id"],
  options: {
    dropSecrets: {
      type: "flag",
      summary: "Give up stored secrets, when the key that opens them, age.key, is lost",
    },
    ...dataDirOption,
  },
  examples: [
    "sudo systemctl stop bhatti && sudo bhatti admin recover",
    "sudo bhatti admin recover sb_0123456789abcdef",
  ],
  async run({ args, options, operator, isJson, out }) {
    const found = await operator.recover({
      dataDir: options.dataDir ?? defaultDataDir,
      id: args.id,
      dropSecrets: options.dropSecrets,
    })
    if (isJson) return await out.json(found)
    await out.result(`database: ${found.database}`)
    for (const { name, user, id } of found.sandboxes)
      await out.result(`sandbox ${name} of ${user} (${id}) has its row again`)
    for (const { name, user, id } of found.snapshots)
      await out.result(`snapshot ${name} of ${user} (${id}) has its row again`)
    for (const { name, key } of found.users)
      await out.result(`user ${name} has a new key, shown once: ${key}`)
    for (const note of found.notes) await out.result(`note: ${note}`)
    await out.result("start the daemon: sudo systemctl start bhatti")
  },
})
