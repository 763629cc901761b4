/** API keys of a user that may do less than the user: shapes of the resource and of its requests. */

import { z } from "zod"
import { SandboxId } from "./ids.ts"
import { limits } from "./limits.ts"
import { Permission } from "./permission.ts"

const KeyName = z.string().regex(limits.keyNamePattern, limits.keyNameRule)

export const ApiKey = z
  .object({
    id: z.string(),
    name: KeyName,
    can: z.array(Permission).describe("Everything else is refused"),
    sandboxes: z
      .array(z.object({ id: SandboxId, name: z.string().nullable().describe("null: it is destroyed") }))
      .nullable()
      .describe("The only sandboxes that exist for this key; null: all of its user's"),
    created_at: z.iso.datetime(),
    expires_at: z.iso.datetime().nullable().describe("null: never"),
  })
  .meta({ id: "ApiKey" })
export type ApiKey = z.infer<typeof ApiKey>

export const CreateKey = z
  .strictObject({
    name: KeyName.optional().describe("Unique among your keys; generated if it is left out"),
    can: z.array(Permission).min(1).max(limits.keyPermissionsMax),
    sandboxes: z
      .array(z.string().min(1).max(128))
      .min(1)
      .max(limits.keySandboxesMax)
      .optional()
      .describe("Names or ids; a key without them is for all your sandboxes, future ones too"),
    expires_in: z
      .number()
      .min(1)
      .max(limits.keyLifeSecMax)
      .optional()
      .describe("Seconds until it expires; default: never"),
  })
  .meta({ id: "CreateKey" })
export type CreateKey = z.infer<typeof CreateKey>

export const CreatedKey = ApiKey.extend({
  key: z.string().describe("The key itself, which is shown only once"),
}).meta({ id: "CreatedKey" })

export const RevokedKey = z.object({ status: z.literal("revoked") })
