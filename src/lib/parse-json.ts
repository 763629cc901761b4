/** Parses JSON from files and answers that may be truncated or not JSON. */

/** Returns undefined if the text is not JSON; no JSON text parses to undefined. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
