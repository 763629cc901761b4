/** Suggests the most likely intended word. */

/** Returns undefined if no candidate is close: a wrong guess is worse than none. */
export function suggest(word: string, candidates: readonly string[]): string | undefined {
  const startsAlike = candidates.filter((one) => bare(word).length >= 2 && one.startsWith(word))
  if (startsAlike.length === 1) return startsAlike[0]
  const distanceMax = Math.min(2, Math.floor(bare(word).length / 3))
  let best: { candidate: string; distance: number } | undefined
  for (const candidate of candidates) {
    if (!beginsAlike(bare(word), bare(candidate))) continue
    const distance = editDistance(word, candidate)
    if (distance <= distanceMax && distance < (best?.distance ?? Number.POSITIVE_INFINITY))
      best = { candidate, distance }
  }
  return best?.candidate
}

/** Removes an option's dashes, which say nothing about the intended word. */
function bare(word: string): string {
  return word.replace(/^-+/, "")
}

/** Typos rarely change the first letter, except by swapping it: `mount` is not a misspelt `count`. */
function beginsAlike(word: string, candidate: string): boolean {
  return word[0] === candidate[0] || (word[0] === candidate[1] && word[1] === candidate[0])
}

/** Counts letters to add, drop, replace, or swap with their neighbour. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = []
  let last = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let row = 1; row <= from.length; row++) {
    const current = [row]
    for (let column = 1; column <= to.length; column++) {
      const isEqual = from[row - 1] === to[column - 1]
      let cost = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (isEqual ? 0 : 1),
      )
      const isSwap =
        row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]
      if (isSwap) cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1)
      current.push(cost)
    }
    beforeLast = last
    last = current
  }
  return last[to.length] ?? 0
}
