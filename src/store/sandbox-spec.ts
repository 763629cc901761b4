/**
 * The specification of a sandbox: all that its owner decides, and copies inherit. It is stored as one JSON value, so a
 * further attribute is written here and nowhere else in the store. An attribute that rows of earlier versions lack
 * needs a default.
 */

import { ImageConfig } from "@bhatti/contract/image-config"
import { TtlEnd } from "@bhatti/contract/lifetime"
import { NetPolicy } from "@bhatti/contract/network"
import { z } from "zod"

/** Settings that a create gives, a copy inherits, and an edit may replace at any time. */
export const SandboxSettings = z.object({
  keepHot: z.boolean().default(false),
  allowCold: z.boolean().default(true),
  /** Idle seconds until it is paused, and paused seconds until it is saved; null: the host's times, 0: never. */
  warmAfterSec: z.number().nullable().default(null),
  coldAfterSec: z.number().nullable().default(null),
  /** Seconds that it lives, from its creation or from when this was set; null: for ever. */
  ttlSec: z.number().nullable().default(null),
  onTtl: TtlEnd.default("pause"),
  netPolicy: NetPolicy,
  description: z.string().nullable().default(null),
})
export type SandboxSettings = z.infer<typeof SandboxSettings>

export const settingNames = SandboxSettings.keyof().options

/** A program that its guest keeps running. */
export const SandboxService = z.object({
  name: z.string(),
  /** For a shell. */
  command: z.string(),
  user: z.string().nullable().default(null),
  cwd: z.string().nullable().default(null),
  restart: z.enum(["always", "on-failure", "never"]).default("always"),
  after: z.array(z.string()).default([]),
})
export type SandboxService = z.infer<typeof SandboxService>

export const SandboxSpec = z.object({
  ...SandboxSettings.shape,
  /** The image's name among the host's files, and the hash of its disk. */
  imageName: z.string(),
  imageHash: z.string(),
  /** The configuration that the image has brought along; null: an image of our own. */
  imageConfig: ImageConfig.nullable().default(null),
  /** Runs as the session `main`, again at each boot; null: none. */
  mainCommand: z.array(z.string()).nullable().default(null),
  /** The row of a user's image, and its name when the sandbox was made; null: an image of the host. */
  imageId: z.string().nullable().default(null),
  imageShownAs: z.string().nullable().default(null),
  cpus: z.number(),
  memoryMib: z.number(),
  diskMib: z.number(),
  env: z.record(z.string(), z.string()),
  /** Their values are only in `secrets`. */
  secretNames: z.array(z.string()),
  labels: z.record(z.string(), z.string()),
  /** Runs at each boot of its machine; null: none. */
  bootScript: z.string().nullable().default(null),
  /** Ran in the template it was made from, and runs at each boot; null: none. */
  startCommand: z.string().nullable().default(null),
  /** Proved that it was ready. */
  readyCommand: z.string().nullable().default(null),
  services: z.array(SandboxService).default([]),
  /** Its guest starts the image's init at each boot. */
  initSystem: z.boolean().default(false),
})
export type SandboxSpec = z.infer<typeof SandboxSpec>

/** The specification in a larger record, with the defaults of settings that it lacks. */
export function specOf(record: z.input<typeof SandboxSpec>): SandboxSpec {
  return SandboxSpec.parse(record)
}

export function readSpec(text: string | null): SandboxSpec {
  return SandboxSpec.parse(JSON.parse(text ?? "null"))
}

export function writeSpec(record: SandboxSpec): string {
  return JSON.stringify(specOf(record))
}
