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
