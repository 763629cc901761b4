/** Images: the root filesystems that sandboxes start from. Those of the host are available to every user. */

import { z } from "zod"
import { ImageId } from "./ids.ts"
import { ImageConfig } from "./image-config.ts"

export const Image = z
  .object({
    id: ImageId.nullable().describe("null: an image of the host"),
    user_id: z.string().describe("Its owner; empty: the host"),
    name: z.string(),
    reference: z.string().nullable().describe("What it was pulled as, with the registry; null: not pulled"),
    index_digest: z.string().nullable().describe("Digest that the reference named when it was pulled"),
    manifest_digest: z.string().nullable().describe("Digest of the manifest for its platform"),
    platform: z.string().nullable(),
    status: z
      .enum(["preparing", "ready"])
      .describe("preparing: its template is being made, and the first create may wait for it"),
    is_shared: z.boolean().describe("Whether every user may use it"),
    config: ImageConfig.nullable().describe("Its own configuration; null: an image of the host"),
    hash: z.string().describe("Changes with the content; sandboxes keep the version they were made from"),
    is_default: z.boolean().describe("Used when a create names no image"),
    size_mb: z.number().describe("Space on the host"),
    disk_size_mb: z
      .int()
      .describe("Size of its disk as a sandbox sees it, and the minimum disk size of its sandboxes"),
    kernel_version: z
      .string()
      .nullable()
      .describe("The kernel whose modules it holds; null: none, the host's are used"),
    created_at: z.iso.datetime().describe("When it was made on this host"),
  })
  .meta({ id: "Image" })
export type Image = z.infer<typeof Image>
