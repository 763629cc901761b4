/** The manifest beside a template's files, which proves it complete. */

import { z } from "zod"
import { KitPath } from "./process.ts"

/** Templates of earlier versions lack the checksums and the owner, and are accepted without. */
export const Manifest = z.object({
  fingerprint: z.string(),
  shape: z.object({
    cpus: z.int(),
    memoryMib: z.int(),
    accelerator: z.enum(["kvm", "tcg"]),
    network: z.enum(["tap", "user"]),
  }),
  image: z.object({ name: z.string(), hash: z.string(), file: z.string(), diskMib: z.int() }),
  kit: KitPath.optional(),
  /** The account that alone may use it. */
  owner: z.string().nullable().optional(),
  files: z.object({
    memory: z.object({ bytes: z.int(), checksum: z.string().optional() }),
    state: z.object({ bytes: z.int(), sha256: z.string() }),
    disk: z.object({ checksum: z.string() }).optional(),
    blank: z.object({ checksum: z.string() }).optional(),
  }),
})
export type Manifest = z.infer<typeof Manifest>
