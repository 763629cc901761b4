/** Detects corruption. Not a defence against someone who can write to the data directory. */

export class Checksum {
  #value = 0n

  add(bytes: Uint8Array): void {
    this.#value = BigInt(Bun.hash.xxHash3(bytes, this.#value))
  }

  value(): string {
    return this.#value.toString(16)
  }
}
