/** Images: the root filesystems that sandboxes start from. They belong to the host and are available to every user. */

import { z } from "zod"

export const Image = z
  .object({
    name: z.string(),
    hash: z.string().describe("Changes with the content; sandboxes keep the version they were made from"),
    is_default: z.boolean().describe("Used when a create names no image"),
    size_mb: z.number().describe("Space on the host"),
    disk_size_mb: z
      .int()
      .describe("Size of its disk as a sandbox sees it, and the minimum disk size of its sandboxes"),
    kernel_version: z.string(),
    created_at: z.iso.datetime().describe("When it was installed on this host"),
  })
  .meta({ id: "Image" })
export type Image = z.infer<typeof Image>
