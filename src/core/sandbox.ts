/** A sandbox as its owner asks for it, and as the owner may know it: its record, and what the running daemon knows. */

import type { SandboxService } from "../store/sandbox-spec.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Core, OnHost } from "./core.ts"
import { noSandbox } from "./find.ts"
import type { HoldReason } from "./parts.ts"
import type { RequestedSettings } from "./policy.ts"
import { urlOf } from "./publish.ts"

/** A request for a sandbox. Fields left out have the defaults of `contract/limits.ts`, or are those of the source. */
export type CreateSandbox = RequestedSettings & {
  name?: string | undefined
  /** Makes a copy of this sandbox in its current state; `init` and `files` are then refused. */
  from?: string | undefined
  image?: string | undefined
  cpus?: number | undefined
  memoryMib?: number | undefined
  diskMib?: number | undefined
  env?: Record<string, string>
  /** Names of the account's secrets. */
  secrets?: string[]
  labels?: Record<string, string>
  init?: string | undefined
  /** Runs already when it is made: its template is frozen once `readyCommand` has succeeded. */
  startCommand?: string | undefined
  readyCommand?: string | undefined
  /** Starts the image's init. Default: the image's. */
  initSystem?: boolean | undefined
  /** Starts the image's program: its ENTRYPOINT with these words, or with its CMD if there are none. */
  run?: readonly string[] | undefined
  /** Kept running in the guest, besides those of its image. */
  services?: readonly SandboxService[] | undefined
  /** Runs the init script at each boot too; default: true. */
  onBoot?: boolean
  files?: readonly { path: string; bytes: Uint8Array; mode?: string | undefined }[]
  /** Returns a sandbox of that name if there is one, instead of an error. */
  ifNotExists?: boolean
}

export type Sandbox = SandboxRecord & {
  /** Set while it is paused because of a full disk, whatever its state is. */
  held: HoldReason | null
  /** The step that it waits for while it is created. */
  waitsFor: string | null
  /** URLs of its published ports. */
  urls: string[]
  /** The address that belongs to it, which its guest gets when it starts. */
  ip: string | null
  /** The time of day at which its lifetime ends; null: it has no end, or is over. */
  endsAt: string | null
}

type Parts = Pick<Core, "hostClock" | "store" | "space" | "waits" | "settings"> & OnHost<"network">

export async function describeSandboxes(core: Parts, records: SandboxRecord[]): Promise<Sandbox[]> {
  const published = await core.store.publishedPorts.listOf(records.map(({ id }) => id))
  const bySandbox = Map.groupBy(published, ({ sandboxId }) => sandboxId)
  return records.map((record) => {
    const urls = (bySandbox.get(record.id) ?? []).map(({ alias }) => urlOf(core, alias))
    return describeSandbox(core, record, urls)
  })
}

export async function describeById(core: Parts, id: SandboxRecord["id"]): Promise<Sandbox> {
  const record = await core.store.sandboxes.get(id)
  const [sandbox] = record ? await describeSandboxes(core, [record]) : []
  if (!sandbox) throw noSandbox(id)
  return sandbox
}

export function describeSandbox(
  core: Omit<Parts, "store" | "settings">,
  record: SandboxRecord,
  urls: string[] = [],
): Sandbox {
  return {
    ...record,
    held: core.space.heldOf(record) ?? null,
    waitsFor: core.waits.get(record.id) ?? null,
    urls,
    endsAt: record.lifetime?.kind === "set" ? core.hostClock.isoAt(record.lifetime.endsAtMs) : null,
    ip: core.host.network?.identityOf(record).address ?? null,
  }
}
