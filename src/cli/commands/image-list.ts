/** `bhatti image list`. */

import type { Image } from "@bhatti/contract/image"
import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { ageText, sizeText } from "../words.ts"

export const imageList = command({
  description:
    "Your own images, those shared with you, and the host's, which its operator adds with `bhatti init --image NAME`. `create --image` takes one of these names.",
  options: { quiet: quietOption },
  examples: ["bhatti image list", "bhatti image list --json"],
  async run({ client, options, isJson, out }) {
    const images = await client.listImages()
    if (isJson) return await out.json(images)
    if (options.quiet) return await printNames(out, images)
    if (images.length === 0) return await out.talk("no images; the operator installs them with: bhatti init")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "OWNER", "STATUS", "SIZE", "DISK", "CREATED"],
      images.map((image) => [
        image.name,
        ownerText(image),
        image.status,
        sizeText(image.size_mb),
        sizeText(image.disk_size_mb),
        ageText(image.created_at, nowMs),
      ]),
    )
  },
})

function ownerText({ id, user_id, is_own, is_default }: Image): string {
  if (id === null) return is_default ? "host (default)" : "host"
  return is_own ? "you" : user_id
}
