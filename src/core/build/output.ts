/** The newest part of what a build has printed, as a task's progress carries it, with its place in the whole. */

const keptMax = 64 * 1024

export type Printed = {
  /** Characters that came before the text. */
  start: number
  text: string
}

export class BuildOutput {
  #start = 0
  #text = ""
  readonly #onChange: (printed: Printed) => void
  #decoders = new Map<string, TextDecoder>()

  constructor(onChange: (printed: Printed) => void) {
    this.#onChange = onChange
  }

  line(text: string): void {
    const isInLine = this.#text !== "" && !this.#text.endsWith("\n")
    this.#add(`${isInLine ? "\n" : ""}${text}\n`)
  }

  /** A program's output, whose characters may be split over pieces. */
  bytes(channel: string, bytes: Uint8Array): void {
    const decoder = this.#decoders.get(channel) ?? new TextDecoder()
    this.#decoders.set(channel, decoder)
    this.#add(decoder.decode(bytes, { stream: true }))
  }

  /** The next program begins anew. */
  endProgram(): void {
    this.#decoders = new Map()
  }

  #add(text: string): void {
    const all = this.#text + text
    const cut = Math.max(0, all.length - keptMax)
    this.#start += cut
    this.#text = all.slice(cut)
    this.#onChange({ start: this.#start, text: this.#text })
  }
}
