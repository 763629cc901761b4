/** `bhatti image list`. */

import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { ageText, sizeText } from "../words.ts"

export const imageList = command({
  description:
    "Images belong to the host; its operator adds one with `bhatti init --image NAME`. `create --image` takes one of these names.",
  options: { quiet: quietOption },
  examples: ["bhatti image list", "bhatti image list --json"],
  async run({ client, options, isJson, out }) {
    const images = await client.listImages()
    if (isJson) return await out.json(images)
    if (options.quiet) return await printNames(out, images)
    if (images.length === 0) return await out.talk("no images; the operator installs them with: bhatti init")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "DEFAULT", "SIZE", "DISK", "KERNEL", "INSTALLED"],
      images.map((image) => [
        image.name,
        image.is_default ? "yes" : "-",
        sizeText(image.size_mb),
        sizeText(image.disk_size_mb),
        image.kernel_version ?? "-",
        ageText(image.created_at, nowMs),
      ]),
    )
  },
})
