/**
 * Output of a command as a model gets it: all of it, or its beginning and its end with the place of the rest. Holds no
 * more than it shows.
 */

const headBytes = 4000
const tailBytes = 12_000

export class CutOutput {
  readonly #head: Buffer[] = []
  #headRoom = headBytes
  #tail = Buffer.alloc(0)
  #total = 0
  /** Bytes that never reached this side. */
  #missed = 0

  add(bytes: Uint8Array, skipped = 0): void {
    this.#missed += skipped
    this.#total += bytes.length + skipped
    const toHead = this.#missed > 0 ? 0 : Math.min(this.#headRoom, bytes.length)
    if (toHead > 0) this.#head.push(Buffer.from(bytes.subarray(0, toHead)))
    this.#headRoom -= toHead
    const rest = bytes.subarray(Math.max(toHead, bytes.length - tailBytes))
    if (rest.length > 0) this.#tail = Buffer.concat([this.#tail, rest]).subarray(-tailBytes)
  }

  get isCut(): boolean {
    return this.#total > Buffer.concat(this.#head).length + this.#tail.length
  }

  get isEmpty(): boolean {
    return this.#total === 0
  }

  /** `place` names the stream for the reader, who can ask for the rest. */
  text(place: string): string {
    const head = Buffer.concat(this.#head)
    if (!this.isCut) return Buffer.concat([head, this.#tail]).toString("utf8")
    const end = wholeCharacters(head)
    const start = firstCharacter(this.#tail)
    const cut = this.#total - end - (this.#tail.length - start)
    const note = `[${cut} of ${this.#total} bytes are left out; to read them: ${place} offset=${end}]`
    return `${head.toString("utf8", 0, end)}\n${note}\n${this.#tail.toString("utf8", start)}`
  }
}

/** Length of the bytes without a character at their end that is cut. */
export function wholeCharacters(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if (byte < 0x80) return bytes.length
    if (byte >= 0xc0) {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2
      return length > back ? bytes.length - back : bytes.length
    }
  }
  return bytes.length
}

function firstCharacter(bytes: Uint8Array): number {
  let at = 0
  while (at < Math.min(3, bytes.length) && ((bytes[at] ?? 0) & 0xc0) === 0x80) at++
  return at
}
