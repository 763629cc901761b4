/** The terms of a machine's start as the daemon names it: by the id of its sandbox. */

import type { AppError } from "@bhatti/contract/errors"
import type { MachineDisk } from "./plugged-disks.ts"
import type { Connect } from "./sockets.ts"
import type { Machine as MachineIn, MachineResources, StarterOptions } from "./starter.ts"
import type { MachineKernel, Template } from "./template-files.ts"
import type { ForksOptions, Zygote } from "./zygotes.ts"

/** A machine of a sandbox, which it has the id of. */
export type Machine = Omit<MachineIn, "directory"> & { id: string }
/** A sandbox whose disk exists, for the start of its machine. */
export type MachinePlace = {
  id: string
  template: Template
  slot: number
  diskMib: number
  /** Disks beside its own. */
  disks?: readonly MachineDisk[]
}
export type Kernel = MachineKernel & { arguments?: string[] }
export type Place = Omit<MachineResources, "kit" | "qemu" | "disks"> & { disks: readonly MachineDisk[] }
export type From =
  | { kind: "template"; zygote?: Zygote | undefined }
  | { kind: "memory"; zygote?: Zygote | undefined }
  | { kind: "disk"; kernel: Kernel }

export type MachinesOptions<Guest> = StarterOptions & {
  dataDir: string
  connect: Connect<Guest>
  tapOf: (id: string) => string | undefined
  /** Directory of the draft of a copy. */
  draftOf: (id: string) => string
  onUnshared: (id: string, error: unknown) => void
  /** Called for damaged files that are taken out of use. */
  onDamage: (error: AppError) => void
  /** If omitted, no machine is forked. */
  forks?: ForksOptions
}
