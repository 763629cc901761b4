/**
 * Secrets: a user's named values, encrypted at rest. A sandbox gets those it was created with as environment variables.
 */

import { z } from "zod"
import { limits } from "./limits.ts"

export const SecretName = z.string().regex(limits.variableNamePattern, limits.secretNameRule)

export const Secret = z
  .object({ name: SecretName, created_at: z.iso.datetime(), updated_at: z.iso.datetime() })
  .meta({ id: "Secret" })
export type Secret = z.infer<typeof Secret>

const valueRule = `a secret's value has 1 to ${limits.secretBytesMax} characters`

export const SetSecret = z
  .strictObject({
    name: SecretName,
    value: z
      .string()
      .min(1, valueRule)
      .max(limits.secretBytesMax, valueRule)
      .refine((value) => !value.includes("\0"), "a secret cannot hold a NUL"),
  })
  .meta({ id: "SetSecret" })

export const DeletedSecret = z.object({ status: z.literal("deleted") })
