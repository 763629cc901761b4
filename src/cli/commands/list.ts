/** `bhatti list`. */

import { command } from "../command.ts"
import { ageText, sizeText } from "../words.ts"

export const list = command({
  description: "Shows only the sandboxes of your API key, oldest first.",
  options: {
    wide: { type: "flag", short: "w", summary: "Show size, image and id too" },
  },
  examples: ["bhatti list", "bhatti ls --wide", "bhatti list --json | jq -r '.[].name'"],
  async run({ client, options, isJson, out }) {
    const sandboxes = await client.listSandboxes()
    if (isJson) return await out.json(sandboxes)
    if (sandboxes.length === 0) return await out.talk("no sandboxes; make one with: bhatti create --name dev")
    const nowMs = Date.now()
    const header = ["NAME", "STATUS", "THERMAL", "IP"]
    const wideHeader = ["CPUS", "MEMORY", "DISK", "IMAGE", "CREATED", "ID"]
    await out.table(
      options.wide ? [...header, ...wideHeader] : header,
      sandboxes.map((sandbox) => {
        const cells = [sandbox.name, sandbox.status, sandbox.thermal ?? "-", sandbox.ip ?? "-"]
        if (!options.wide) return cells
        return [
          ...cells,
          String(sandbox.cpus),
          sizeText(sandbox.memory_mb),
          sizeText(sandbox.disk_size_mb),
          sandbox.image,
          ageText(sandbox.created_at, nowMs),
          sandbox.id,
        ]
      }),
    )
  },
})
