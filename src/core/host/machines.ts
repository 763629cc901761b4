/** Machines of sandboxes. */

import type { ProcessIdentity } from "../../lib/process-identity.ts"
import type { Guest } from "./guests.ts"
import type { Kernel } from "./images.ts"
import type { Template } from "./templates.ts"
import type { Zygote } from "./zygotes.ts"

/** A machine has the id of its sandbox. */
export type Machine = { id: string; process: ProcessIdentity; memoryBase: "template" | "empty" }
export type Started = {
  machine: Machine
  guest: Guest
  /** How the fork of the given zygote went. Its error: the machine is a clone instead. */
  fork?: { error: unknown } | "done"
}
/** A raw file as a disk. The guest sees the id, of at most 20 letters, digits, - and _, as its serial number. */
export type MachineDisk = { id: string; path: string; isReadOnly: boolean }
/** A sandbox whose disk exists, for the start of its machine. `disks` are those beside its own. */
export type MachinePlace = {
  id: string
  template: Template
  slot: number
  diskMib: number
  disks?: readonly MachineDisk[]
}
/**
 * The source of a start: the template, the memory that `saveSnapshot` left, or the disk, from which it boots. A machine
 * of the template, or of saved memory, is forked from the template's zygote, if one is given and that works.
 */
export type MachineFrom =
  | { kind: "template"; zygote?: Zygote | undefined }
  | { kind: "memory"; zygote?: Zygote | undefined }
  | { kind: "disk"; kernel: Kernel }

/**
 * How a guest ended its machine. `agent`: the guest's first process failed; `init`: its init did. `console`: the last
 * output of its console, which the guest controls.
 */
export type MachineEnd = { how: "poweroff" | "reboot" | "panic" | "agent" | "init"; console: string }

/** The state or end of a machine. The host's kernel ended it if `out_of_memory`, its reboot if `host_restart`. */
export type Fate = MachineEnd | { how: "running" | "out_of_memory" | "host_restart" | "killed" }

export interface Machines {
  /**
   * Connects to the guest before its machine runs, so that no message is lost. The caller ends both; a start that fails
   * leaves neither.
   */
  start(place: MachinePlace, from: MachineFrom): Promise<Started>
  /** Connects to the guest of a machine that runs. */
  connect(machine: Machine): Promise<Guest>
  /** Throws if damage to a sandbox's disk is detected. `missingMib`: data that the host lost when it went down. */
  checkDisk(id: string): Promise<{ missingMib: number }>
  /** Throws if the disk that belongs to the saved memory is damaged. */
  checkSnapshot(
    id: string,
    template: Template,
    disks?: readonly MachineDisk[],
  ): Promise<{ fits: true; memoryMib: number } | { fits: false; reason: string }>
  /**
   * Gives a running machine a further disk, which its guest sees a moment later. Saved memory knows its disks: it fits
   * only with the same ones, unchanged.
   */
  plugDisk(machine: Machine, disk: MachineDisk): Promise<void>
  /** Waits until the guest has released the disk; does nothing if there is no such disk. */
  unplugDisk(machine: Machine, id: string): Promise<void>
  pause(machine: Machine): Promise<void>
  resume(machine: Machine): Promise<void>
  /** Returns whether the processors stand still; `disk_full`: a guest's write waits for space on the host. */
  haltOf(machine: Machine): Promise<"none" | "paused" | "disk_full">
  /** Saves beside the machine's disk, or into the draft of a copy, which is not synced and can be aborted. */
  saveSnapshot(machine: Machine, options?: { draft: string; signal: AbortSignal }): Promise<void>
  removeSnapshot(id: string): Promise<void>

  isRunning(machine: Machine): boolean
  /** Waits until the machine ends by itself or the deadline has passed. Call it before `kill`, which tidies up. */
  fateOf(machine: Machine, options: { deadlineMs: number }): Promise<Fate>
  /** Returns how the guest ended the sandbox's last machine. */
  lastEndOf(id: string): Promise<MachineEnd | undefined>
  find(id: string): Machine | undefined
  /** Resources that the machine has used so far: bytes of its disk and of its network, read and written. */
  usageOf(machine: Machine): { cpuMs: number; diskBytes: number; networkBytes: number }
  /**
   * Memory of a booted machine that takes none of the host. Undefined for machines on a template's memory, whose
   * kernels overwrite freed memory themselves.
   */
  untouchedMib(machine: Machine): Promise<number | undefined>
  /** Memory that machines may still take before the host's kernel has to kill something. */
  availableMemoryMib(): number
  /** "background" lets all other processes on the host go first. */
  setUrgency(machine: Machine, urgency: "normal" | "background"): void
  /** Without a machine it ends every process of the sandbox's, in case a crash left no other trace of one. */
  kill(machine: Machine | { id: string }): Promise<void>
  /** Removes copies of QEMU that no machine and no saved memory needs. Returns their versions. */
  removeUnusedQemus(): Promise<string[]>
  /** Tells whether no new sandbox may get that slot: a process of the host has its user id. */
  isSlotInUse(slot: number): boolean
  growDisk(machine: Machine, diskMib: number): Promise<void>
  diagnose(machine: Machine): Promise<{ qemu: string; console: string }>
}
