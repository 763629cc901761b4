/** The daemon's report about itself and its host. */

import { z } from "zod"
import { errorStatus } from "./errors.ts"

export const Health = z
  .object({ status: z.literal("ok"), uptime: z.number().describe("Seconds") })
  .meta({ id: "Health" })
export type Health = z.infer<typeof Health>

export const Version = z
  .object({
    version: z.string(),
    accelerator: z
      .enum(["kvm", "tcg"])
      .describe("tcg: software emulation, which is slower and not a security boundary"),
    accelerator_reason: z.string(),
    starts: z
      .enum(["fork", "clone"])
      .optional()
      .describe("How new sandboxes start; older daemons do not say"),
    starts_reason: z.string().optional(),
    default_registry: z
      .string()
      .nullable()
      .describe("Registry of references without one; null: such references are refused"),
    warnings: z.array(z.string()).describe("Guarantees that this host cannot give, one line each"),
    features: z
      .array(z.string())
      .describe(
        "Features of this daemon, which older ones omit: `exec_key`, keys of commands; `input_writer`, a count of each driver's input",
      ),
  })
  .meta({ id: "Version" })
export type Version = z.infer<typeof Version>

export const ErrorSubject = z
  .looseObject({ kind: z.string() })
  .describe("What the error is about, such as `kind: sandbox` with its `name`; kinds may be added")

export const ErrorReason = z
  .string()
  .describe(
    "The exact cause within the code, where programs may need it, such as `no_directory` for a command that cannot start; reasons may be added",
  )

/** Body of every error answer. `error` repeats `message` for clients that know only that field. */
export const ErrorBody = z
  .object({
    error: z.string(),
    code: z.enum(Object.keys(errorStatus) as [keyof typeof errorStatus]),
    message: z.string(),
    hint: z.string().nullable(),
    subject: ErrorSubject.optional(),
    reason: ErrorReason.optional(),
    retryable: z.boolean(),
    request_id: z.string(),
  })
  .meta({ id: "Error" })
export type ErrorBody = z.infer<typeof ErrorBody>

/** Last message of a WebSocket whose work failed. */
export const StreamError = z.object({
  type: z.literal("error"),
  code: z.string(),
  message: z.string(),
  hint: z.string().nullable(),
  subject: ErrorSubject.optional(),
  reason: ErrorReason.optional(),
  retryable: z.boolean().optional(),
})
