/**
 * The bytes between host and guest: preambles and frames, as protocol/PROTOCOL.md says.
 *
 * frame.ts and message.ts are twins of agent/wire/frame.go and agent/wire/message.go; protocol/vectors.json tests
 * both. The bytes come from a guest, which may be hostile: every length is checked before anything is kept, and a
 * decoder holds at most one largest frame.
 */

/** The highest generation of the protocol that this host speaks. */
export const generation = 3

export const wireLimits = {
  preambleBytes: 28,
  headerBytes: 12,
  dataBytesMax: 32_768,
  sharedPieceBytesMax: 65_536,
  jsonBytesMax: 262_144,
  frameBytesMax: 12 + 262_144,
  windowBytes: 262_144,
  streamsMax: 256,
  streamMax: 0xffff_ffff,
} as const

export const channels = { stdin: 0, stdout: 1, stderr: 2 } as const

const frameTypes = ["open", "data", "window", "end", "message", "close", "data_at"] as const
export type FrameType = (typeof frameTypes)[number]

/** The length of each type's payload. */
const lengths: Record<FrameType, { min: number; max: number }> = {
  open: { min: 0, max: wireLimits.jsonBytesMax },
  data: { min: 2, max: wireLimits.dataBytesMax + 1 },
  window: { min: 4, max: 4 },
  end: { min: 1, max: 1 },
  message: { min: 0, max: wireLimits.jsonBytesMax },
  close: { min: 0, max: wireLimits.jsonBytesMax },
  data_at: { min: 9, max: 9 },
}

export type Frame = { type: FrameType; stream: number; payload: Uint8Array }

/** The peer broke a rule of the protocol; its connection ends. */
export class WireError extends Error {
  override readonly name = "WireError"
}

const mark = [0x62, 0x68, 0x74] as const
const hostMagic = Uint8Array.from([0xb4, ...Buffer.from("BHATTI\n")])
const guestMagic = Uint8Array.from([0xb4, ...Buffer.from("LOHAR\r\n")])

export const nonceBytes = 16

export function encodeHostPreamble(nonce: Uint8Array): Uint8Array {
  return Buffer.concat([hostMagic, nonce, Uint8Array.of(generation >> 8, generation & 0xff, 0, 0)])
}

export function encodeFrame(frame: Frame): Uint8Array {
  const bytes = Buffer.allocUnsafe(wireLimits.headerBytes + frame.payload.length)
  putHeader(bytes, frame.type, frame.stream, frame.payload.length)
  bytes.set(frame.payload, wireLimits.headerBytes)
  return bytes
}

export function encodeData(stream: number, channel: number, data: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafe(wireLimits.headerBytes + 1 + data.length)
  putHeader(bytes, "data", stream, data.length + 1)
  bytes[wireLimits.headerBytes] = channel
  bytes.set(data, wireLimits.headerBytes + 1)
  return bytes
}

/** A piece of the shared memory. */
export type Extent = { offset: number; length: number }

export function encodeDataAt(stream: number, channel: number, { offset, length }: Extent): Uint8Array {
  const bytes = Buffer.allocUnsafe(wireLimits.headerBytes + lengths.data_at.max)
  putHeader(bytes, "data_at", stream, lengths.data_at.max)
  bytes[wireLimits.headerBytes] = channel
  bytes.writeUInt32BE(offset, wireLimits.headerBytes + 1)
  bytes.writeUInt32BE(length, wireLimits.headerBytes + 5)
  return bytes
}

/** Reads the payload of a `data_at` frame. The caller checks that the extent belongs to the stream. */
export function parseDataAt(payload: Uint8Array): { channel: number; extent: Extent } {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length)
  const extent = { offset: bytes.readUInt32BE(1), length: bytes.readUInt32BE(5) }
  if (extent.length === 0 || extent.length > wireLimits.sharedPieceBytesMax) {
    throw new WireError(`a data_at frame of ${extent.length} bytes`)
  }
  return { channel: bytes[0] ?? 0, extent }
}

export function encodeWindow(stream: number, count: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(wireLimits.headerBytes + 4)
  putHeader(bytes, "window", stream, 4)
  bytes.writeUInt32BE(count, wireLimits.headerBytes)
  return bytes
}

export function encodeEnd(stream: number, channel: number): Uint8Array {
  return encodeFrame({ type: "end", stream, payload: Uint8Array.of(channel) })
}

export function encodeClose(stream: number): Uint8Array {
  return encodeFrame({ type: "close", stream, payload: new Uint8Array() })
}

function putHeader(bytes: Buffer, type: FrameType, stream: number, length: number): void {
  bytes[0] = frameTypes.indexOf(type) + 1
  bytes.set(mark, 1)
  bytes.writeUInt32BE(stream, 4)
  bytes.writeUInt32BE(length, 8)
}

type Header = { type: FrameType; stream: number; length: number }

function parseHeader(bytes: Buffer): Header {
  const type = frameTypes[(bytes[0] ?? 0) - 1]
  const stream = bytes.readUInt32BE(4)
  const length = bytes.readUInt32BE(8)
  const isMarked = mark.every((byte, index) => bytes[index + 1] === byte)
  if (!isMarked || type === undefined || stream === 0) throw new WireError("a frame header is broken")
  if (length < lengths[type].min || length > lengths[type].max) {
    throw new WireError(`a ${type} frame has a payload of ${length} bytes`)
  }
  return { type, stream, length }
}

export type Decoded = { kind: "preamble"; generation: number } | { kind: "frame"; frame: Frame }

/**
 * Decodes the guest's bytes, in whatever pieces they arrive, into its preamble with the expected nonce and the
 * frames after it. Payloads are copies. A decoder must not be used after a `WireError`.
 */
export class Decoder {
  /** Bytes dropped while looking for the preamble. */
  droppedBytes = 0
  #wanted: Buffer
  #isFound = false
  #kept: Buffer = Buffer.allocUnsafeSlow(0)
  #keptBytes = 0

  constructor(nonce: Uint8Array) {
    this.#wanted = Buffer.concat([guestMagic, nonce])
  }

  /** Searches for a preamble with another nonce. */
  expect(nonce: Uint8Array): void {
    this.#wanted = Buffer.concat([guestMagic, nonce])
    this.#isFound = false
  }

  *decode(chunk: Uint8Array): Generator<Decoded, void, void> {
    let bytes = this.#join(chunk)
    for (;;) {
      const used = this.#isFound ? frameLength(bytes) : this.#search(bytes)
      if (used === undefined || used > bytes.length) {
        const isDroppable = !this.#isFound && used === undefined
        this.#keep(isDroppable ? bytes.subarray(this.#droppable(bytes)) : bytes)
        return
      }
      const unit = bytes.subarray(0, used)
      bytes = bytes.subarray(used)
      yield this.#isFound ? { kind: "frame", frame: toFrame(unit) } : this.#accept(unit)
    }
  }

  /** Returns the end of the wanted preamble, or undefined if its beginning is not there. */
  #search(bytes: Buffer): number | undefined {
    const start = bytes.indexOf(this.#wanted)
    return start < 0 ? undefined : start + wireLimits.preambleBytes
  }

  /** Returns the number of bytes that cannot be part of the wanted preamble any more. */
  #droppable(bytes: Buffer): number {
    const count = Math.max(0, bytes.length - (this.#wanted.length - 1))
    this.droppedBytes += count
    return count
  }

  #accept(unit: Buffer): Decoded {
    const spoken = unit.readUInt16BE(unit.length - 4)
    if (spoken < 1 || spoken > generation) throw new WireError(`the guest speaks generation ${spoken}`)
    this.#isFound = true
    return { kind: "preamble", generation: spoken }
  }

  /** Appends the chunk to the kept bytes. A frame that arrives in many pieces is not copied for each of them. */
  #join(chunk: Uint8Array): Buffer {
    if (this.#keptBytes === 0) return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    const total = this.#keptBytes + chunk.length
    if (total > this.#kept.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(total, 2 * this.#kept.length))
      larger.set(this.#kept.subarray(0, this.#keptBytes))
      this.#kept = larger
    }
    this.#kept.set(chunk, this.#keptBytes)
    return this.#kept.subarray(0, total)
  }

  #keep(rest: Buffer): void {
    this.#keptBytes = rest.length
    const isInPlace = rest.buffer === this.#kept.buffer && rest.byteOffset === this.#kept.byteOffset
    if (isInPlace) return
    this.#kept = Buffer.allocUnsafeSlow(Math.max(rest.length, 64))
    this.#kept.set(rest)
  }
}

/** Returns the length of the frame that begins here, or undefined if its header is incomplete. */
function frameLength(bytes: Buffer): number | undefined {
  if (bytes.length < wireLimits.headerBytes) return undefined
  return wireLimits.headerBytes + parseHeader(bytes).length
}

function toFrame(unit: Buffer): Frame {
  const { type, stream } = parseHeader(unit)
  return { type, stream, payload: Uint8Array.prototype.slice.call(unit, wireLimits.headerBytes) }
}
