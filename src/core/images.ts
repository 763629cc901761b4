/** Images of this host, available to every account. */

import type { Image } from "@bhatti/contract/image"
import { limits } from "@bhatti/contract/limits"
import type { Core } from "./core.ts"

export async function listImages(core: Pick<Core, "host">): Promise<Image[]> {
  const images = await core.host.images.list()
  return images.map(({ name, hash, diskMib, usedMib, kernelVersion, installedAt }) => ({
    name,
    hash,
    is_default: name === limits.imageDefault,
    size_mb: usedMib,
    disk_size_mb: diskMib,
    kernel_version: kernelVersion,
    created_at: installedAt,
  }))
}
