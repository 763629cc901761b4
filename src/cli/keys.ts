/**
 * Reads keys at a terminal, for questions: a line feed is Enter too, Ctrl-D stops as Ctrl-C does, and lines that were pasted together
 * answer one question each.
 */

import { PassThrough } from "node:stream"

const enter = "\r"
const stop = "\x03"

export class Keys implements Disposable {
  #kept = ""
  #question: PassThrough | undefined
  #last: PassThrough | undefined

  /** From here on nothing that is typed is echoed. */
  constructor() {
    process.stdin.setRawMode(true)
    process.stdin.setEncoding("utf8")
    process.stdin.on("data", this.#onData)
  }

  /** For one question, which gets nothing behind its Enter. */
  open(): NodeJS.ReadStream {
    const question = new PassThrough()
    this.#last = question
    this.goOn()
    return question as unknown as NodeJS.ReadStream
  }

  /** The answer was refused, so the same question gets what comes next. */
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
