/** Questions that are answered with yes or no, to the person at the terminal if there is one. */

import { isTerminal } from "./output.ts"

export async function isPersonThere(): Promise<boolean> {
  return (await isTerminal(0)) && (await isTerminal(1))
}

/** The runtime's own question reads one line. Its `confirm` would take "yes" for no. */
export function isConfirmed(question: string): boolean {
  return /^(y|yes)$/i.test((prompt(`${question} [y/N]`) ?? "").trim())
}
