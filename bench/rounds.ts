/**
 * Measures several subjects in turns: one round of each, over and over, the order turned around every time, so that a
 * busy moment of the host meets all of them alike.
 */

/** Measures one round; returns its values by name. */
export type Subject = () => Promise<Record<string, number>>

export type RoundOptions = {
  rounds: number
  /** Rounds before the first that counts. */
  warmUps: number
  /** No further round begins after this time. */
  budgetMs: number
}

/** The samples of every name. At least one round is measured, whatever the budget. */
export async function measureInTurns(
  subjects: readonly Subject[],
  options: RoundOptions,
): Promise<Record<string, number[]>> {
  const samples: Record<string, number[]> = {}
  const startedAt = performance.now()
  for (let round = -options.warmUps; round < options.rounds; round++) {
    if (round > 0 && performance.now() - startedAt > options.budgetMs) break
    const order = round % 2 === 0 ? subjects : subjects.toReversed()
    for (const subject of order) {
      const values = await subject()
      if (round < 0) continue
      for (const [name, value] of Object.entries(values)) {
        samples[name] ??= []
        samples[name].push(value)
      }
    }
  }
  return samples
}
