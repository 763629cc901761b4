/** A task's progress on standard error: a bar for each layer at a terminal, a line for each step otherwise. */

import type { Task } from "@bhatti/contract/task"
import type { Output } from "./output.ts"
import { bytesText, countText } from "./words.ts"

const barWidth = 24
/** More layers than that share a line. */
const barsMax = 12

export class TaskProgressLines implements AsyncDisposable {
  readonly #out: Output
  readonly #kind: "quiet" | "lines" | "bars"
  #step = ""
  /** Characters of the task's output that were printed. */
  #printed = 0
  #drawn = 0

  private constructor(out: Output, kind: "quiet" | "lines" | "bars") {
    this.#out = out
    this.#kind = kind
  }

  static async open(out: Output, { isQuiet }: { isQuiet: boolean }): Promise<TaskProgressLines> {
    if (isQuiet) return new TaskProgressLines(out, "quiet")
    return new TaskProgressLines(out, (await out.stderr.isTerminal()) ? "bars" : "lines")
  }

  async show(task: Task): Promise<void> {
    if (this.#kind === "quiet") return
    if (task.progress.output) return await this.#print(task.progress.output)
    if (task.completed_at !== null) return
    if (this.#kind === "bars") return await this.#draw(barsOf(task))
    if (task.progress.step === this.#step) return
    this.#step = task.progress.step
    await this.#out.talk(stepLine(task))
  }

  /** The rest of the output; a part that was too fast is left out. */
  async #print({ start, text }: NonNullable<Task["progress"]["output"]>): Promise<void> {
    await this[Symbol.asyncDispose]()
    const left = start - this.#printed
    if (left > 0) await this.#out.talk(`… ${left} characters are left out …`)
    const rest = text.slice(Math.max(0, this.#printed - start))
    this.#printed = start + text.length
    if (rest !== "") await this.#out.stderr.write(new TextEncoder().encode(rest))
  }

  /** Removes a half-drawn bar. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#drawn > 0) await this.#draw([])
  }

  async #draw(lines: readonly string[]): Promise<void> {
    const up = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : ""
    const text = `${up}\x1b[J${lines.map((line) => `${line}\n`).join("")}`
    this.#drawn = lines.length
    await this.#out.stderr.write(new TextEncoder().encode(text))
  }
}

function stepLine({ subject, progress: { step, layers } }: Task): string {
  const total = layers.reduce((sum, layer) => sum + layer.total, 0)
  const about = layers.length > 0 ? ` ${countText(layers.length, "layer")}, ${bytesText(total)}` : ""
  return `${subject}: ${step}${about}`
}

function barsOf(task: Task): string[] {
  const { layers } = task.progress
  return [stepLine(task), ...layers.slice(0, barsMax).map(barOf), ...moreOf(layers.slice(barsMax))]
}

export function barOf({ digest, bytes, total }: Task["progress"]["layers"][number]): string {
  const done = bytes >= total ? barWidth : Math.floor((bytes / total) * barWidth)
  const bar = "=".repeat(done) + " ".repeat(barWidth - done)
  return `  ${digest.replace(/^sha256:/, "").slice(0, 12)} [${bar}] ${bytesText(bytes)} of ${bytesText(total)}`
}

function moreOf(layers: Task["progress"]["layers"]): string[] {
  if (layers.length === 0) return []
  const sum = (of: "bytes" | "total") => layers.reduce((all, layer) => all + layer[of], 0)
  return [
    `  ${countText(layers.length, "more layer")}: ${bytesText(sum("bytes"))} of ${bytesText(sum("total"))}`,
  ]
}
