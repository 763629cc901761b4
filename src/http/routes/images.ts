/** Handlers of images. */

import { listImages } from "../../core/images.ts"
import type { Handlers } from "../context.ts"
import { viewImages } from "../views/image.ts"

export const images = {
  async listImages({ core, account }) {
    return viewImages(await listImages(core, account))
  },
} satisfies Partial<Handlers>
