/** Yes-or-no questions to the person at the terminal, if there is one. */

import { isTerminal } from "./output.ts"

export async function isPersonThere(): Promise<boolean> {
  return (await isTerminal(0)) && (await isTerminal(1))
}

/** Uses the runtime's `prompt`, which reads one line; its `confirm` would take "yes" for no. */
export function isConfirmed(question: string): boolean {
  return /^(y|yes)$/i.test((prompt(`${question} [y/N]`) ?? "").trim())
}
