/** Handlers of images. */

import { listImages } from "../../core/images.ts"
import type { Handlers } from "../context.ts"

export const images = {
  async listImages({ core }) {
    return listImages(core)
  },
} satisfies Partial<Handlers>
