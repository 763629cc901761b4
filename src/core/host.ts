/**
 * The ports to the host, one file each: the real adapters fit them by shape, and the simulation fakes them. Slow
 * methods take a deadline; a failure is an `AppError`. Core names everything on the host by id.
 */

import type { Backups } from "./host/backups.ts"
import type { BuildContexts } from "./host/build-contexts.ts"
import type { Disks, KeptRows, Snapshots } from "./host/disks.ts"
import type { Images } from "./host/images.ts"
import type { Machines } from "./host/machines.ts"
import type { Network } from "./host/network.ts"
import type { Packs } from "./host/packs.ts"
import type { Pulls } from "./host/pulls.ts"
import type { Templates } from "./host/templates.ts"
import type { Zygotes } from "./host/zygotes.ts"

export type * from "./host/backups.ts"
export type * from "./host/build-contexts.ts"
export type * from "./host/disks.ts"
export type * from "./host/guests.ts"
export type * from "./host/images.ts"
export type * from "./host/machines.ts"
export type * from "./host/network.ts"
export type * from "./host/packs.ts"
export type * from "./host/pulls.ts"
export type * from "./host/templates.ts"
export type * from "./host/zygotes.ts"

export type Host = {
  machines: Machines
  templates: Templates
  disks: Disks
  snapshots: Snapshots
  keptRows: KeptRows
  backups: Backups
  images: Images
  pulls: Pulls
  packs: Packs
  buildContexts: BuildContexts
  /** Null if machines use QEMU's own network, which reaches nothing. */
  network: Network | null
  /** Null if no machine is forked. */
  zygotes: Zygotes | null
}
