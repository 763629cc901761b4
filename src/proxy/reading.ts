/** Reads heads and bodies from a peer. */

import { ChunkDecoder } from "./chunked.ts"
import { canBegin, type Framing, findHeadEnd, HeadError } from "./head.ts"
import { Lost, type Peer } from "./peer.ts"

/**
 * Returns the bytes of the next head, or undefined if the other side ended before it. Refuses bytes that cannot
 * begin a message of its kind immediately: another protocol's client might wait for us to speak.
 */
export async function readHead(
  peer: Peer,
  kind: "request" | "response",
  onBegun: () => void,
): Promise<Buffer | undefined> {
  let bytes: Buffer = Buffer.alloc(0)
  for (;;) {
    const chunk = await peer.read()
    if (!chunk) {
      if (bytes.length === 0) return undefined
      throw new Lost("the connection ended within a head")
    }
    const lookedAt = bytes.length
    if (lookedAt === 0) onBegun()
    bytes = lookedAt === 0 ? bufferOf(chunk) : Buffer.concat([bytes, chunk])
    if (!canBegin(kind, bytes)) throw new HeadError("this is not HTTP")
    const end = findHeadEnd(bytes, lookedAt)
    if (end !== -1) {
      peer.unread(bytes.subarray(end))
      return bytes.subarray(0, end)
    }
  }
}

/** The body as it arrives, without its framing. Throws when it ends too early. */
export async function* readBody(peer: Peer, framing: Framing): AsyncGenerator<Uint8Array, void> {
  switch (framing.kind) {
    case "none":
      return
    case "length":
      return yield* readLength(peer, framing.bytes)
    case "chunked":
      return yield* readChunked(peer)
    case "until_close":
      for (let chunk = await peer.read(); chunk; chunk = await peer.read()) yield chunk
  }
}

async function* readLength(peer: Peer, bytes: number): AsyncGenerator<Uint8Array, void> {
  for (let left = bytes; left > 0; ) {
    const chunk = await readMore(peer)
    if (chunk.length > left) peer.unread(chunk.subarray(left))
    const piece = chunk.subarray(0, left)
    left -= piece.length
    yield piece
  }
}

async function* readChunked(peer: Peer): AsyncGenerator<Uint8Array, void> {
  const decoder = new ChunkDecoder()
  while (!decoder.isDone) {
    const chunk = await readMore(peer)
    const { pieces, used } = decoder.decode(chunk)
    if (decoder.isDone) peer.unread(chunk.subarray(used))
    const [only = new Uint8Array()] = pieces
    // Tiny chunks that arrived together are forwarded together: one write instead of thousands.
    const body = pieces.length > 1 ? Buffer.concat(pieces) : only
    if (body.length > 0) yield body
  }
}

async function readMore(peer: Peer): Promise<Uint8Array> {
  const chunk = await peer.read()
  if (!chunk) throw new Lost("the connection ended within a body")
  return chunk
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
