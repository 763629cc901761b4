/**
 * A shell at a terminal, so that the terminal and its modes outlive the program. Its screen is the bytes that were
 * shown.
 */

import { expect } from "bun:test"
import { environment, program, type Reachable, until } from "./program.ts"

export class Screen implements AsyncDisposable {
  text = ""
  readonly shell: Bun.Subprocess
  readonly #decoder = new TextDecoder()

  constructor(daemon: Reachable, env: Record<string, string> = {}) {
    this.shell = Bun.spawn(["sh"], {
      env: environment(daemon, { PS1: "ready> ", ...env }),
      terminal: {
        cols: 100,
        rows: 30,
        data: (_, bytes) => {
          this.text += this.#decoder.decode(bytes)
        },
      },
    })
  }

  type(text: string): void {
    this.shell.terminal?.write(text)
  }

  resize(size: { cols: number; rows: number }): void {
    this.shell.terminal?.resize(size.cols, size.rows)
  }

  async shows(text: string): Promise<void> {
    await until(`${JSON.stringify(text)} on the screen, which shows ${JSON.stringify(this.text)}`, () =>
      this.text.includes(text),
    )
  }

  /** Runs the program, then shows its exit code and the terminal's modes. */
  async bhatti(args: string): Promise<void> {
    await this.shows("ready> ")
    // The quotes keep the typed line itself from looking like the answer.
    this.type(`${program.join(" ")} ${args}; echo "code"=$?; stty -a; echo "do""ne"\n`)
  }

  async restored(): Promise<void> {
    await this.shows("done\r\n")
    const modes = this.text.slice(this.text.lastIndexOf("code=")).split(/[\s;]+/)
    for (const mode of ["icanon", "isig", "echo", "opost", "icrnl"]) expect(modes).toContain(mode)
  }

  /** Pid of the program that runs. */
  async programPid(): Promise<number> {
    const children = await Bun.file(`/proc/${this.shell.pid}/task/${this.shell.pid}/children`).text()
    return Number(children.trim())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.shell.kill("SIGKILL")
    await this.shell.exited
  }
}
