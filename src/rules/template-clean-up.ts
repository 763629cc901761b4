/** Chooses the templates to evict when they take too much space together: unneeded ones, least recently used first. */

export type TemplateFacts = {
  id: string
  mib: number
  /** The account that alone uses it; null if it serves everybody. */
  owner: string | null
  lastUsedMs: number
  /** A sandbox, a snapshot or the pool depends on it, or the next create is likely to need it. */
  isNeeded: boolean
}

/** A create that has just received a template has not recorded its dependency yet. */
export const templateGraceMs = 600_000
export const ownGraceMs = 30_000

/**
 * Chooses the templates of one account that give way to another of its own: the least recently used. A template that
 * was just made may not have its sandbox yet, so the time since its last use counts here too, but shorter: its owner
 * waits.
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

/**
 * Templates that one account alone uses have a budget of their own, and may take as much again as the shared ones; the
 * account that takes the most gives way first. Templates of accounts that are gone are removed in any case.
 */
export function templatesToRemove(
  templates: readonly TemplateFacts[],
  options: { budgetMib: number; nowMs: number; users: ReadonlySet<string> },
): string[] {
  const isRemovable = ({ isNeeded, lastUsedMs }: TemplateFacts) =>
    !isNeeded && options.nowMs - lastUsedMs >= templateGraceMs
  const gone = templates.filter(({ owner }) => owner !== null && !options.users.has(owner))
  const rest = templates.filter((one) => !gone.includes(one))
  const shared = rest.filter(({ owner }) => owner === null)
  const owned = rest.filter(({ owner }) => owner !== null)
  return [
    ...gone.filter(isRemovable),
    ...toFit(shared, isRemovable, options.budgetMib),
    ...toFit(owned, isRemovable, options.budgetMib),
  ].map(({ id }) => id)
}

function toFit(
  templates: readonly TemplateFacts[],
  isRemovable: (one: TemplateFacts) => boolean,
  budgetMib: number,
): TemplateFacts[] {
  let kept = templates
  const removed: TemplateFacts[] = []
  while (mibOf(kept) > budgetMib) {
    const taken = Map.groupBy(kept, ({ owner }) => owner)
    const [next] = kept
      .filter(isRemovable)
      .sort(
        (one, other) =>
          mibOf(taken.get(other.owner) ?? []) - mibOf(taken.get(one.owner) ?? []) ||
          one.lastUsedMs - other.lastUsedMs,
      )
    if (!next) break
    removed.push(next)
    kept = kept.filter((one) => one !== next)
  }
  return removed
}

function mibOf(templates: readonly TemplateFacts[]): number {
  return templates.reduce((sum, { mib }) => sum + mib, 0)
}
