/** Images of this host, available to every account. */

import type { OnHost } from "./core.ts"
import type { InstalledImage } from "./host.ts"

export async function listImages(core: OnHost<"images">): Promise<InstalledImage[]> {
  return core.host.images.list()
}
