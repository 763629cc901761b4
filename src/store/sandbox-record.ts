/**
 * A sandbox as the store knows it. The state is a tagged union, parsed on reading; a row in any state reserves its
 * name, its slot and a place within the owner's limit.
 *
 *   creating ──► hot ◄──────► warm          hot: running; warm: paused in memory
 *                 │  ▲         │
 *                 ▼  └─waking ─┼──◄─┐       waking: the machine is found again by its name
 *              stopping ◄──────┘    │
 *                 └───────► cold ───┘       cold: on disk only, with or without its memory
 *   any ──► destroying ──► (row gone)
 *
 * A row without an owner is a pooled sandbox: made ahead and invisible to users. It is `creating` until it is claimed.
 */

import type { SandboxId, UserId } from "@bhatti/contract/ids"
import { z } from "zod"
import type { Lifetime, Stopped } from "./lifetime.ts"
import type { SandboxSpec } from "./sandbox-spec.ts"

/** Its owner has asked for the stop, and nobody has used it since. */
const isWanted = z.boolean().optional()

const Machine = z.strictObject({
  process: z.strictObject({ pid: z.int(), startTicks: z.int(), bootId: z.string() }),
  memoryBase: z.enum(["template", "empty"]),
})

export const SandboxState = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("creating") }),
  z.strictObject({ kind: z.literal("hot"), machine: Machine }),
  z.strictObject({ kind: z.literal("warm"), machine: Machine }),
  z.strictObject({ kind: z.literal("stopping"), machine: Machine, isWanted }),
  z.strictObject({
    kind: z.literal("cold"),
    hasSnapshot: z.boolean(),
    reason: z.string().nullable(),
    isWanted,
  }),
  z.strictObject({
    kind: z.literal("waking"),
    fromSnapshot: z.boolean(),
    /** Stamp of the snapshot's disk before anything ran on it. */
    diskStamp: z.string().optional(),
  }),
  z.strictObject({ kind: z.literal("destroying") }),
])
export type SandboxState = z.infer<typeof SandboxState>

export type SandboxRecord = SandboxSpec & {
  id: SandboxId
  userId: UserId
  name: string
  state: SandboxState
  slot: number
  /** The template below its disk; null until there is a disk. */
  templateId: string | null
  /** Disk space on the host as last measured, or at least the expected minimum. */
  usedMib: number
  /** The address its guest was last given, on disk and in memory; null: none. */
  address: string | null
  /** Why it last booted from disk instead of resuming from memory. */
  bootReason: string | null
  /** Belongs to a batch that is not done: it may still be undone. */
  isInBatch: boolean
  /** Null: it lives for ever. */
  lifetime: Lifetime | null
  stopped: Stopped | null
  createdAt: string
}

export type NewSandbox = SandboxSpec & Pick<SandboxRecord, "name" | "usedMib" | "lifetime">
