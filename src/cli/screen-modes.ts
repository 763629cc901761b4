/**
 * Terminal modes that programs in the sandbox have switched on (the alternate screen, the mouse, a hidden cursor),
 * read from their output. A program that ends restores them itself; a program that keeps running when we leave
 * cannot.
 */

const escapeByte = 0x1b
/** Longer sequences do not set modes. */
const sequenceLengthMax = 64

/** Private modes (`ESC [ ? N h`) that outlive a program, and their state in a fresh terminal. */
const privateModes: ReadonlyMap<number, boolean> = new Map([
  // Cursor keys, reverse video, origin, wrapping at the margin, visible cursor.
  ...[1, 5, 6].map((mode) => [mode, false] as const),
  ...[7, 25].map((mode) => [mode, true] as const),
  // Mouse and focus reports, bracketed paste, synchronised output, colour scheme and size reports.
  ...[9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016].map((mode) => [mode, false] as const),
  ...[2004, 2026, 2031, 2048].map((mode) => [mode, false] as const),
  // The alternate screen comes last, so that the others are restored on the screen where they were set.
  ...[47, 1047, 1049].map((mode) => [mode, false] as const),
])

export class ScreenModes {
  readonly #switched = new Set<number>()
  /** Levels of the keyboard protocol that were pushed and not popped. */
  #keyboardLevels = 0
  /** Other modes to undo: name and sequence. */
  readonly #undo = new Map<string, string>()
  /** An incomplete sequence at the end of the last piece. */
  #begun = ""
  readonly #decoder = new TextDecoder("latin1")

  watch(bytes: Uint8Array): void {
    if (this.#begun === "" && !bytes.includes(escapeByte)) return
    const text = this.#begun + this.#decoder.decode(bytes)
    this.#begun = ""
    for (let at = text.indexOf("\x1b"); at >= 0; at = text.indexOf("\x1b", at + 1)) {
      const sequence = text.slice(at, at + sequenceLengthMax)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences are what this is about.
      const control = /^\x1b\[([<-?]?)([0-9;:]*)([ -/]*)([@-~])/.exec(sequence)
      if (control !== null) this.#control(control)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: as above.
      else if (/^\x1b(\[[0-?]*[ -/]*)?$/.test(sequence) && sequence.length < sequenceLengthMax)
        this.#begun = sequence
      else this.#short(sequence)
    }
  }

  /** Returns the sequences that restore the terminal. */
  undo(): string {
    const modes = [...privateModes].filter(([mode]) => this.#switched.has(mode))
    return [
      ...this.#undo.values(),
      ...(this.#keyboardLevels > 0 ? [`\x1b[<${this.#keyboardLevels}u`] : []),
      ...modes.map(([mode, isOnAtStart]) => `\x1b[?${mode}${isOnAtStart ? "h" : "l"}`),
    ].join("")
  }

  #control([, prefix = "", parameters = "", between = "", final = ""]: RegExpExecArray): void {
    switch (prefix + between + final) {
      case "?h":
      case "?l":
        for (const mode of parameters.split(";").map(Number)) this.#switchMode(mode, final === "h")
        break
      case "m":
        this.#note("colours", /^[0;]*$/.test(parameters) ? undefined : "\x1b[0m")
        break
      case "r":
        // Setting the region moves the cursor, so the position is saved.
        this.#note("region", parameters === "" ? undefined : "\x1b7\x1b[r\x1b8")
        break
      case " q":
        this.#note("cursor", parameters === "" || parameters === "0" ? undefined : "\x1b[0 q")
        break
      case ">m":
        this.#note("keys", /^4(;0)?$/.test(parameters) ? undefined : "\x1b[>4m")
        break
      case ">u":
        this.#keyboardLevels++
        break
      case "<u":
        this.#keyboardLevels = Math.max(0, this.#keyboardLevels - Number(parameters || 1))
        break
      case "!p":
        this.#reset()
        break
    }
  }

  #short(sequence: string): void {
    if (sequence.startsWith("\x1b=")) this.#note("keypad", "\x1b>")
    if (sequence.startsWith("\x1b>")) this.#note("keypad", undefined)
    if (sequence.startsWith("\x1b(")) this.#note("letters", sequence[2] === "B" ? undefined : "\x1b(B")
    if (sequence.startsWith("\x1bc")) this.#reset()
  }

  #switchMode(mode: number, isOn: boolean): void {
    if (privateModes.get(mode) === !isOn) this.#switched.add(mode)
    else this.#switched.delete(mode)
  }

  #note(what: string, undo: string | undefined): void {
    if (undo === undefined) this.#undo.delete(what)
    else this.#undo.set(what, undo)
  }

  #reset(): void {
    this.#switched.clear()
    this.#undo.clear()
    this.#keyboardLevels = 0
  }
}
