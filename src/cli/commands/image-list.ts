/** `bhatti image list`. */

import { AppError } from "@bhatti/contract/errors"
import type { HostImage, Image } from "@bhatti/contract/image"
import type { Client } from "@bhatti/sdk/client"
import { command } from "../command.ts"
import { printNames, quietOption } from "../quiet.ts"
import { ageText, sizeText } from "../words.ts"

export const imageList = command({
  description:
    "Your own images, those shared with you, and the host's. One that is not installed is made by the host when the first sandbox is created from it, or by `bhatti image install`. `create --image` takes one of these names.",
  options: { quiet: quietOption },
  examples: ["bhatti image list", "bhatti image list --json"],
  async run({ client, options, isJson, out }) {
    const images = await client.listImages()
    if (isJson) return await out.json(images)
    if (options.quiet) return await printNames(out, images)
    const missing = (await hostImages(client)).filter(({ is_installed }) => !is_installed)
    if (images.length + missing.length === 0)
      return await out.talk("no images; the operator installs them with: bhatti init")
    const nowMs = Date.now()
    await out.table(
      ["NAME", "OWNER", "STATUS", "SIZE", "DISK", "CREATED"],
      [
        ...images.map((image) => [
          image.name,
          ownerText(image),
          image.status,
          sizeText(image.size_mb),
          sizeText(image.disk_size_mb),
          ageText(image.created_at, nowMs),
        ]),
        ...missing.map(({ name }) => [name, "host", "not installed", "-", "-", "-"]),
      ],
    )
  },
})

/** A daemon of an earlier build does not tell. */
async function hostImages(client: Client): Promise<HostImage[]> {
  try {
    return await client.listHostImages()
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return []
    throw error
  }
}

function ownerText({ id, user_id, is_own, is_default }: Image): string {
  if (id === null) return is_default ? "host (default)" : "host"
  return is_own ? "you" : user_id
}
