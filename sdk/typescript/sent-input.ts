/** Input of a command that was sent, as far as it may have to be sent again over another connection. */

/** Acknowledged bytes that the guest may hold without its program having taken them: a window. */
const keptBytes = 256 * 1024

type Piece = Uint8Array<ArrayBuffer>

export class SentInput {
  readonly #pieces: Piece[] = []
  /** Offset of the first kept byte. */
  #first = 0
  #total = 0
  #acknowledged = 0

  get unacknowledged(): number {
    return this.#total - this.#acknowledged
  }

  add(piece: Piece): void {
    // The caller may use its buffer again.
    this.#pieces.push(piece.slice())
    this.#total += piece.length
  }

  acknowledge(bytes: number): void {
    this.#acknowledged += bytes
    for (let piece = this.#pieces[0]; piece !== undefined; piece = this.#pieces[0]) {
      if (this.#first + piece.length > this.#acknowledged - keptBytes) return
      this.#first += piece.length
      this.#pieces.shift()
    }
  }

  /** Another connection does not send it again. */
  forget(): void {
    this.acknowledge(this.unacknowledged)
  }

  /** The pieces that a program lacks that has taken so much; undefined if they are not kept any more. */
  from(offset: number): Piece[] | undefined {
    if (offset < this.#first || offset > this.#total) return undefined
    this.#acknowledged = offset
    let before = offset - this.#first
    const rest: Piece[] = []
    for (const piece of this.#pieces) {
      if (before < piece.length) rest.push(piece.subarray(before))
      before = Math.max(0, before - piece.length)
    }
    return rest
  }
}
