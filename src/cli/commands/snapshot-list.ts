/** `bhatti snapshot list`. */

import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { ageText, sizeText } from "../words.ts"

export const snapshotList = command({
  options: { quiet: quietOption },
  examples: ["bhatti snapshot list", "bhatti snapshot list --json"],
  async run({ client, options, isJson, out }) {
    const snapshots = await client.listSnapshots()
    if (isJson) return await out.json(snapshots)
    if (options.quiet) return await printNames(out, snapshots)
    if (snapshots.length === 0)
      return await out.talk("no snapshots; make one with: bhatti snapshot create SANDBOX --name NAME")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "SANDBOX", "STATUS", "MEMORY", "SIZE", "CREATED"],
      snapshots.map((snapshot) => [
        snapshot.name,
        snapshot.source_sandbox,
        snapshot.status,
        snapshot.has_memory ? sizeText(snapshot.memory_mb) : "-",
        sizeText(snapshot.size_mb),
        ageText(snapshot.created_at, nowMs),
      ]),
    )
  },
})
