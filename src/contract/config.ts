/** The daemon's configuration file, `config.yaml` in the data directory. Unknown keys are refused. */

import { z } from "zod"
import { defaultDataDir, defaultListen } from "./limits.ts"

export const Config = z.strictObject({
  data_dir: z.string().startsWith("/").default(defaultDataDir),
  listen: z
    .string()
    .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, "use HOST:PORT")
    .default(defaultListen),
  domain: z.string().default("localhost"),
  accel: z
    .enum(["auto", "kvm", "tcg"])
    .default("auto")
    .describe("auto proves KVM by booting a guest under it, else uses software emulation"),
  network: z.enum(["auto", "tap", "user"]).default("auto"),
  uid_base: z
    .int()
    .min(1000)
    .max(2_000_000_000)
    .default(700_000)
    .describe("First of 65 536 user ids that machines run as; nothing else on the host may use them"),
  disk_reserve_mb: z
    .int()
    .min(0)
    .default(1024)
    .describe("Free space in MiB that creating a sandbox must leave on the data directory's file system"),
  log_level: z.enum(["trace", "debug", "info", "warn", "error"]).default("info"),
  // Keys of the command line's settings may stand in the same file, since BHATTI_CONFIG can name one file for both.
  api_url: z.string().optional(),
  auth_token: z.string().optional(),
})
export type Config = z.infer<typeof Config>
