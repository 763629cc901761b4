/** The shapes of e2b's control plane, as the SDKs 2.x send and read them. Unknown fields are ignored. */

import { limits } from "@bhatti/contract/limits"
import { z } from "zod"

/** A sandbox lives so long if its client does not say. */
export const timeoutSecDefault = 300

const Seconds = z.number().min(0).max(limits.ttlSecMax)
const Texts = z.record(z.string(), z.string())

export const Network = z.object({
  allowOut: z.array(z.string()).nullish(),
  denyOut: z.array(z.string()).nullish(),
  allow_internet_access: z.boolean().nullish(),
  allowPublicTraffic: z.boolean().nullish(),
  rules: z.unknown().optional(),
  egressProxy: z.unknown().optional(),
})
export type Network = z.infer<typeof Network>

export const NewSandbox = z.object({
  templateID: z.string().min(1).max(limits.guestPathMax),
  timeout: Seconds.nullish(),
  metadata: Texts.nullish(),
  envVars: Texts.nullish(),
  allow_internet_access: z.boolean().nullish(),
  autoPause: z.boolean().nullish(),
  network: Network.nullish(),
  volumeMounts: z.array(z.unknown()).nullish(),
  iam: z.unknown().optional(),
  mcp: z.unknown().optional(),
})
export type NewSandbox = z.infer<typeof NewSandbox>

export const Timeout = z.object({ timeout: Seconds })
export const Connect = z.object({ timeout: Seconds.nullish() })
export const Resume = z.object({ timeout: Seconds.nullish(), autoPause: z.boolean().nullish() })
export const Refresh = z.object({ duration: z.number().min(0).max(3600).nullish() })
export const Nothing = z.object({})
export const NewSnapshot = z.object({ name: z.string().nullish() })
export const Fork = z.object({
  timeout: Seconds.nullish(),
  count: z.int().min(1).max(limits.createCountMax).nullish(),
})

const Page = {
  limit: z.coerce.number().int().min(1).max(100).default(100),
  nextToken: z.string().max(256).optional(),
}

export const ListSandboxes = z.object({
  ...Page,
  metadata: z.string().max(8192).optional(),
  state: z.string().max(64).optional(),
  startedAfter: z.string().max(64).optional(),
  template: z.string().max(256).optional(),
  order: z.enum(["asc", "desc"]).default("desc"),
})
export type ListSandboxes = z.infer<typeof ListSandboxes>

export const ListSnapshots = z.object({
  ...Page,
  sandboxID: z.string().max(128).optional(),
  name: z.string().max(128).optional(),
})

export const Logs = z.object({ limit: z.coerce.number().int().min(0).max(1000).default(1000) })
