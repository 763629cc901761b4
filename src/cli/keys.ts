/**
 * Reads keys at a terminal, for questions: a line feed counts as Enter, Ctrl-D stops like Ctrl-C, and lines pasted
 * together answer one question each.
 */

import { PassThrough } from "node:stream"

const enter = "\r"
const stop = "\x03"

export class Keys implements Disposable {
  #kept = ""
  #question: PassThrough | undefined
  #last: PassThrough | undefined

  /** From here on typed keys are not echoed. */
  constructor() {
    process.stdin.setRawMode(true)
    process.stdin.setEncoding("utf8")
    process.stdin.on("data", this.#onData)
  }

  /** Opens the input for one question, which receives no keys after its Enter. */
  open(): NodeJS.ReadStream {
    const question = new PassThrough()
    this.#last = question
    this.goOn()
    return question as unknown as NodeJS.ReadStream
  }

  /** The answer was refused, so the rest of the input answers the same question again. */
  goOn(): void {
    this.#question = this.#last
    queueMicrotask(() => this.#pass())
  }

  [Symbol.dispose](): void {
    process.stdin.off("data", this.#onData)
    process.stdin.setRawMode(false)
    process.stdin.pause()
  }

  readonly #onData = (text: string): void => {
    this.#kept += text.replace(/\r\n|\n/g, enter).replaceAll("\x04", stop)
    this.#pass()
  }

  #pass(): void {
    const question = this.#question
    if (question === undefined || this.#kept === "") return
    const letters = [...this.#kept]
    const at = letters.findIndex((letter) => letter === enter || letter === stop)
    const passed = at < 0 ? letters : letters.slice(0, at + 1)
    this.#kept = letters.slice(passed.length).join("")
    if (at >= 0) this.#question = undefined
    question.write(passed.join(""))
  }
}
