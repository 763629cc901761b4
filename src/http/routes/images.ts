/** Handlers of images. */

import { listImages } from "../../core/images.ts"
import type { Handlers } from "../context.ts"
import { viewImage } from "../views/image.ts"

export const images = {
  async listImages({ core }) {
    return (await listImages(core)).map(viewImage)
  },
} satisfies Partial<Handlers>
