/** Chooses the templates to evict when they take too much space together: unneeded ones, least recently used first. */

export type TemplateFacts = {
  id: string
  mib: number
  lastUsedMs: number
  /** A sandbox, a snapshot or the pool depends on it, or the next create is likely to need it. */
  isNeeded: boolean
}

/** A create that has just received a template has not recorded its dependency yet. */
export const templateGraceMs = 600_000
export const ownGraceMs = 30_000

/**
 * Chooses the templates of one account that give way to another of its own: the least recently used. One that was just
 * made may not have its sandbox yet, so the time since its last use counts here too, but shorter: its owner waits.
 */
export function ownToRemove(
  templates: readonly TemplateFacts[],
  options: { keptMax: number; nowMs: number },
): string[] {
  const unneeded = templates.filter(({ isNeeded }) => !isNeeded)
  const surplus = unneeded.length - (options.keptMax - 1)
  return unneeded
    .sort((one, other) => one.lastUsedMs - other.lastUsedMs)
    .slice(0, Math.max(0, surplus))
    .filter(({ lastUsedMs }) => options.nowMs - lastUsedMs >= ownGraceMs)
    .map(({ id }) => id)
}

export function templatesToRemove(
  templates: readonly TemplateFacts[],
  options: { budgetMib: number; nowMs: number },
): string[] {
  let takenMib = templates.reduce((sum, { mib }) => sum + mib, 0)
  const unneeded = templates
    .filter(({ isNeeded, lastUsedMs }) => !isNeeded && options.nowMs - lastUsedMs >= templateGraceMs)
    .sort((one, other) => one.lastUsedMs - other.lastUsedMs)
  const removed: string[] = []
  for (const { id, mib } of unneeded) {
    if (takenMib <= options.budgetMib) break
    removed.push(id)
    takenMib -= mib
  }
  return removed
}
