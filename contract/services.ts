/** Services: programs of a sandbox that are started in an order and kept running. */

import { z } from "zod"
import { limits } from "./limits.ts"

export const ServiceName = z
  .string()
  .regex(limits.serviceNamePattern, limits.serviceNameRule)
  .refine((name) => !limits.processIdPattern.test(name), limits.serviceNameRule)
  .refine((name) => !limits.serviceNamesReserved.includes(name), limits.serviceNameReservedRule)

export const restartPolicies = ["always", "on-failure", "never"] as const

const Command = z
  .string()
  .min(1)
  .max(limits.startCommandMax)
  .refine((command) => !command.includes("\0"), "a command cannot hold a NUL")

export const Service = z
  .strictObject({
    name: ServiceName,
    command: Command.describe(
      "Run by /bin/sh -c, as user lohar in /workspace (or the image's own) unless the next two say otherwise",
    ),
    user: z.string().min(1).max(limits.serviceTextMax).nullable().default(null),
    cwd: z.string().min(1).max(limits.serviceTextMax).nullable().default(null),
    restart: z
      .enum(restartPolicies)
      .default("always")
      .describe(
        "Whether it runs again after it has ended; each time in a row after a longer delay, up to 30 s",
      ),
    after: z
      .array(ServiceName)
      .max(limits.servicesMax)
      .default([])
      .describe("Services that start before it, and end after it"),
  })
  .meta({ id: "Service" })
export type Service = z.infer<typeof Service>

export const Services = z
  .array(Service)
  .max(limits.servicesMax)
  .refine(
    (services) => new Set(services.map(({ name }) => name)).size === services.length,
    "two services have one name",
  )

export const ServiceState = z
  .object({
    name: z.string(),
    state: z
      .enum(["running", "backing_off", "ended", "stopped"])
      .describe("backing_off: it has ended and runs again after a delay; stopped: by a request"),
    restarts: z.int(),
    restart: z.enum(restartPolicies),
    command: z.string(),
    process_id: z.string().nullable().describe("Its process that runs, else its last one"),
    reason: z.string().nullable().describe("Why it does not run, or why it ended last"),
    failing: z.boolean().describe("It has ended at least five times in a row"),
    retry_seconds: z.number().nullable(),
  })
  .meta({ id: "ServiceState" })
export type ServiceState = z.infer<typeof ServiceState>

export const ControlService = z
  .strictObject({ action: z.enum(["start", "stop", "restart"]) })
  .meta({ id: "ControlService" })
