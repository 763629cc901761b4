/** Answers that are lines of text. */

/** Complete lines of the body. Reads it by hand, since Safari cannot iterate over a stream. */
export async function* linesOf(response: Response): AsyncGenerator<string> {
  const reader = response.body?.getReader()
  const decoder = new TextDecoder()
  let rest = ""
  try {
    for (;;) {
      const piece = await reader?.read()
      if (piece?.value === undefined) return
      const lines = (rest + decoder.decode(piece.value, { stream: true })).split("\n")
      rest = lines.pop() ?? ""
      yield* lines
    }
  } finally {
    // Ends the request if the caller stops early.
    await reader?.cancel().catch(() => undefined)
  }
}
