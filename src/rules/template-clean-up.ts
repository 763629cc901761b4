/** Which templates are given up when together they take more space than they may: unneeded ones, longest unused first. */

export type TemplateFacts = {
  id: string
  mib: number
  lastUsedMs: number
  /** A sandbox, a snapshot or the pool lies on it, or the next create is likely to ask for it. */
  isNeeded: boolean
}

/** Whoever was just given one has not written down yet that it is needed. */
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
