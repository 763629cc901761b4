/** Templates, which machines are cloned from, and their making. */

import type { Guest } from "./guests.ts"
import type { Image, Kernel } from "./images.ts"

/**
 * Commands that were run before the template was frozen. `owner`: whose words they are; null: the image's. A template
 * with an owner is for that account only.
 */
export type TemplatePrograms = { start: string; ready: string; owner: string | null }

/** `authority` is the digest of the certificates that the guest is made to trust. */
export type TemplateSpec = {
  image: Image
  kernel: Kernel
  cpus: number
  memoryMib: number
  authority?: string
  programs?: TemplatePrograms
}
export type Template = { id: string; diskMib: number }

/** A template being made: its guest has booted. Disposal removes what was not committed. */
export interface TemplateDraft extends AsyncDisposable {
  readonly guest: Guest
  diagnose(): Promise<{ qemu: string; console: string }>
  /** The space that its disk takes by now. */
  measureDiskMib(): Promise<number>
  /** Freezes the machine, ends it, and makes the template visible. */
  commit(): Promise<Template>
}

export interface Templates {
  /** Its memory is loaded, so that its first clone does not wait for that. */
  find(spec: TemplateSpec): Promise<Template | undefined>
  get(id: string): Promise<Template>
  begin(spec: TemplateSpec): Promise<TemplateDraft>
  /**
   * Finished templates: their space, their image, their owner if only one account may use them, and when each was last
   * requested (time of day).
   */
  measure(): Promise<
    { id: string; mib: number; imageHash: string; owner: string | null; lastUsedMs: number }[]
  >
  /** Frees the host's memory of templates with an owner that were not requested within that time. */
  releaseOwned(options: { unusedForMs: number }): Promise<void>
  /** Returns false if the template was requested within that time; it stays. */
  remove(id: string, options: { unusedForMs: number }): Promise<boolean>
  /** Removes unfinished templates of an earlier run, and their machines. */
  removeUnfinished(): Promise<void>
}
