/**
 * Chooses the sandboxes to hold (pause) when disk space runs out, and those to release. Only writers are held: a disk
 * that does not grow takes no space, so its sandbox goes on.
 *
 *   free space   reserve + slack   held sandboxes are released, the longest held first
 *                reserve           holds disks that grew since the last look, or notably since space became short
 *                reserve / 2       holds every disk that grows at all
 *                0                 QEMU stops a machine at the write that finds no space
 */

export type DiskFacts = {
  id: string
  /** Growth since the last look, and since space became short. */
  grewMib: number
  grewSinceShortMib: number
  /** Time at which it was held; null if it is not. */
  heldSinceMs: number | null
  /** Its owner has released it: it may write a little, however short space is. */
  isLetGoOn?: boolean
}

export type SpaceFacts = {
  freeMib: number
  /** Space kept free; 0 disables the rule. */
  reserveMib: number
  /** Below this every sandbox that grows is held; half of the reserve by default. */
  scarceMib?: number
  disks: DiskFacts[]
}

export type SpaceDecision = { hold: string[]; release: string[] }

/** A guest's journal and logs write this much occasionally. */
const burstMib = 1
const trickleMib = 4
const slackMibMin = 32

/** Free space beyond the reserve that each released sandbox needs. */
export function slackMib(reserveMib: number): number {
  return Math.max(slackMibMin, reserveMib / 8)
}

export function isSpaceShort({ freeMib, reserveMib }: Pick<SpaceFacts, "freeMib" | "reserveMib">): boolean {
  return freeMib < reserveMib
}

/** Returns whether a held sandbox may resume. */
export function hasSpace({ freeMib, reserveMib }: Pick<SpaceFacts, "freeMib" | "reserveMib">): boolean {
  return freeMib >= reserveMib + slackMib(reserveMib)
}

export function decideSpace(facts: SpaceFacts): SpaceDecision {
  const { freeMib, reserveMib, disks } = facts
  const held = disks.filter(({ heldSinceMs }) => heldSinceMs !== null)
  const count = Math.floor((freeMib - reserveMib) / slackMib(reserveMib))
  const release = held
    .sort((one, other) => (one.heldSinceMs ?? 0) - (other.heldSinceMs ?? 0))
    .slice(0, Math.max(0, count))
    .map(({ id }) => id)
  if (!isSpaceShort(facts)) return { hold: [], release }
  const isVeryShort = freeMib < (facts.scarceMib ?? reserveMib / 2)
  const writes = ({ grewMib, grewSinceShortMib, isLetGoOn = false }: DiskFacts) =>
    grewMib >= burstMib || grewSinceShortMib >= trickleMib || (isVeryShort && !isLetGoOn && grewMib > 0)
  const hold = disks.filter((disk) => disk.heldSinceMs === null && writes(disk)).map(({ id }) => id)
  return { hold, release: [] }
}

/** Allowance beyond a quota, so that its owner can still remove something inside. */
const graceMib = 64

/** Expresses the rest of a quota as space. A used-up quota leaves sandboxes alone that do not write. */
export function quotaSpace(leftMib: number): Pick<SpaceFacts, "freeMib" | "reserveMib" | "scarceMib"> {
  return { freeMib: leftMib, reserveMib: 1, scarceMib: -graceMib }
}

/** Returns whether an owner may still release a held sandbox. `grewMib`: its disk's growth since it was first held. */
export function hasGrace(grewMib: number): boolean {
  return grewMib < graceMib
}

const waitMsMin = 100
const waitMsMax = 2000
/** Growth of all machines together, as fast as a good disk. */
const writtenMibPerMs = 1

/** Wait until the next look: half of the time in which the space above the reserve can be used up. */
export function spaceWaitMs({ freeMib, reserveMib }: Pick<SpaceFacts, "freeMib" | "reserveMib">): number {
  if (freeMib < reserveMib) return waitMsMin * 2
  return Math.min(waitMsMax, Math.max(waitMsMin, (freeMib - reserveMib) / writtenMibPerMs / 2))
}
