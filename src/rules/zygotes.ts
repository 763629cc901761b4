/**
 * Which templates have a zygote, a heated machine that others are forked from, and when it is replaced. Facts and the
 * time in, decisions out.
 */

/** Private memory of a zygote: its heap, its translated code, and the pages that it has written. */
export const zygoteMib = 80
/** Limit on the templates that have one. */
export const zygotesMax = 4
/** Creates of a template that are worth a zygote, where nothing is made in advance. */
const usesMin = 2
/** All machines of a zygote share its address layout, so neither their number nor its age grows without bound. */
export const childrenMax = 2000
export const zygoteAgeMaxMs = 24 * 3_600_000
/** A zygote that failed to fork so often in a row is given up. */
export const failuresMax = 3
/** After this long without a create its template has no zygote any more, unless it is the most recently used one. */
export const forgetZygoteAfterMs = 30 * 60_000

/** A worn-out zygote that none can replace is ended at so many times its limits. */
const overdueFactor = 2
/** A zygote that has served so long works: the rests after failures begin anew. */
export const servedMs = 600_000

const restMs = 1000
const restMsMax = 600_000

export type ZygoteFacts = { children: number; madeAtMs: number; failuresInARow: number }

/** With `inAdvance`, machines are made before anybody asks for them, and a template that is used once has one too. */
export function isWorthIt(uses: number, { inAdvance }: { inAdvance: boolean }): boolean {
  return uses >= (inAdvance ? 1 : usesMin)
}

/** Returns whether another one should take its place. It serves until that one is ready. */
export function isWornOut({ children, madeAtMs }: ZygoteFacts, nowMs: number): boolean {
  return children >= childrenMax || nowMs - madeAtMs >= zygoteAgeMaxMs
}

/** Returns whether it ends even if none can take its place. */
export function isOverdue({ children, madeAtMs }: ZygoteFacts, nowMs: number): boolean {
  return children >= overdueFactor * childrenMax || nowMs - madeAtMs >= overdueFactor * zygoteAgeMaxMs
}

export function hasServed({ madeAtMs }: ZygoteFacts, nowMs: number): boolean {
  return nowMs - madeAtMs >= servedMs
}

export function isBroken({ failuresInARow }: ZygoteFacts): boolean {
  return failuresInARow >= failuresMax
}

/** Returns the wait before the next attempt to make one, after so many that failed in a row. */
export function restAfterFailures(failures: number): number {
  return Math.min(restMsMax, restMs * 2 ** Math.max(0, failures - 1))
}

/** Returns whether each template has a zygote, in their order: those that were used last. */
export function zygoteTargets(lastWantedMs: readonly number[], nowMs: number): boolean[] {
  const latestFirst = lastWantedMs
    .map((atMs, index) => ({ atMs, index }))
    .sort((one, other) => other.atMs - one.atMs)
  const wanted = new Set(
    latestFirst
      .filter(({ atMs }, rank) => rank === 0 || nowMs - atMs <= forgetZygoteAfterMs)
      .slice(0, zygotesMax)
      .map(({ index }) => index),
  )
  return lastWantedMs.map((_, index) => wanted.has(index))
}
