/** An image on the wire. */

import type { Image } from "@bhatti/contract/image"
import { limits } from "@bhatti/contract/limits"
import type { InstalledImage } from "../../core/host.ts"

export function viewImage(image: InstalledImage): Image {
  return {
    name: image.name,
    hash: image.hash,
    is_default: image.name === limits.imageDefault,
    size_mb: image.usedMib,
    disk_size_mb: image.diskMib,
    kernel_version: image.kernelVersion,
    created_at: image.installedAt,
  }
}
