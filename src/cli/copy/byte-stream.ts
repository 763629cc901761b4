/** Turns pieces produced on demand into a stream for a request, in chunks large enough to send. */

const chunkBytes = 64 * 1024

export function byteStream(
  pieces: AsyncIterable<Uint8Array>,
  onBytes: (bytes: number) => void,
): ReadableStream<Uint8Array> {
  const chunks = chunksOf(pieces)
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await chunks.next()
        if (done) return controller.close()
        onBytes(value.length)
        controller.enqueue(value)
      },
      async cancel() {
        await chunks.return(undefined)
      },
    },
    { highWaterMark: 1 },
  )
}

async function* chunksOf(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let gathered: Uint8Array[] = []
  let gatheredBytes = 0
  for await (const piece of pieces) {
    gathered.push(piece)
    gatheredBytes += piece.length
    if (gatheredBytes < chunkBytes) continue
    yield joined(gathered)
    gathered = []
    gatheredBytes = 0
  }
  if (gatheredBytes > 0) yield joined(gathered)
}

function joined(pieces: Uint8Array[]): Uint8Array {
  const [only] = pieces
  return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces)
}
