/** Published ports: a sandbox's port under one or several public names. */

import { z } from "zod"
import { SandboxId } from "./ids.ts"
import { limits, reservedAliases } from "./limits.ts"

export const Port = z.int().min(1).max(limits.portMax)

export const Alias = z
  .string()
  .regex(limits.aliasPattern, limits.aliasRule)
  .refine((alias) => !reservedAliases.includes(alias), "that alias is reserved")

export const Publish = z
  .strictObject({
    port: Port.optional().describe("Default: the only port that the sandbox's image names (EXPOSE)"),
    alias: Alias.optional().describe(
      "Default: the port's oldest alias, or one made from the sandbox's name and random characters",
    ),
  })
  .meta({ id: "Publish" })

export const UnpublishQuery = z.strictObject({
  alias: z.string().optional().describe("Only this alias of the port. Default: all its aliases"),
})

export const PublishedPort = z
  .object({
    id: z.string(),
    sandbox_id: SandboxId,
    port: Port,
    alias: z.string(),
    url: z.string(),
    created_at: z.iso.datetime(),
  })
  .meta({ id: "PublishedPort" })
export type PublishedPort = z.infer<typeof PublishedPort>

export const ListeningPort = z.object({ port: Port, address: z.string() }).meta({ id: "ListeningPort" })
