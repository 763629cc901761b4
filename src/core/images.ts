/** Images of this host, available to every account. */

import type { Core } from "./core.ts"
import type { InstalledImage } from "./host.ts"

export async function listImages(core: Pick<Core, "host">): Promise<InstalledImage[]> {
  return core.host.images.list()
}
