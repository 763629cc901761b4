/** `bhatti image inspect`. */

import { command } from "../command.ts"
import { alignColumns } from "../output.ts"
import { ageText, printable, sizeText } from "../words.ts"

export const imageInspect = command({
  args: ["image"],
  examples: ["bhatti image inspect app", "bhatti image inspect app --json | jq .config"],
  async run({ client, args, isJson, out }) {
    const image = await client.getImage({ params: { name: args.image } })
    if (isJson) return await out.json(image)
    const { config } = image
    const words = (list: readonly string[]) => list.map(printable).join(" ")
    const lines = alignColumns([
      ["name", image.name],
      ["id", image.id ?? "-"],
      ["owner", image.id === null ? "the host" : image.is_own ? "you" : image.user_id],
      ["status", image.status],
      ["reference", image.reference ?? "-"],
      ["index", image.index_digest ?? "-"],
      ["manifest", image.manifest_digest ?? "-"],
      ["platform", image.platform ?? "-"],
      ["size", `${sizeText(image.size_mb)} here, ${sizeText(image.disk_size_mb)} disk`],
      ...(config
        ? [
            ["user", printable(config.user) || "root"],
            ["directory", printable(config.workdir) || "/"],
            ["entrypoint", words(config.entrypoint) || "-"],
            ["command", words(config.cmd) || "-"],
            ["ports", config.ports.join(" ") || "-"],
            ["variables", words(Object.entries(config.env).map(([key, value]) => `${key}=${value}`)) || "-"],
            ["labels", words(Object.entries(config.labels).map(([key, value]) => `${key}=${value}`)) || "-"],
          ]
        : [["kernel", image.kernel_version ?? "-"]]),
      ["created", `${image.created_at} (${ageText(image.created_at, Date.now())})`],
    ])
    await out.result(lines.join("\n"))
  },
})
