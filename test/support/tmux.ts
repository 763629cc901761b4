/**
 * A real terminal for tests: tmux draws what a person would see, so full-screen programs, sizes and a terminal's modes
 * can be looked at. Each has a server of its own, which ends with it.
 */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { until } from "./installation.ts"

export const tmuxIsThere: boolean = Bun.which("tmux") !== null
if (!tmuxIsThere) console.error("tmux is not installed: tests at a real terminal are skipped")

/** The prompt of the shell in the terminal. */
export const prompt = "here$ "

export class Tmux implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "bhatti-tmux-"))
  readonly #env: Record<string, string>

  private constructor(env: Record<string, string>) {
    this.#env = env
  }

  /** A terminal with a plain shell in it. */
  static async open(
    options: { env?: Record<string, string>; cols?: number; rows?: number } = {},
  ): Promise<Tmux> {
    const { cols = 100, rows = 30 } = options
    const env = {
      PATH: process.env["PATH"] ?? "/usr/bin:/bin",
      HOME: "/dev/null",
      LC_ALL: "C.UTF-8",
      ...options.env,
    }
    const terminal = new Tmux(env)
    const size = ["-x", `${cols}`, "-y", `${rows}`]
    await terminal.#tmux(["-f", "/dev/null", "new-session", "-d", ...size, "env", `PS1=${prompt}`, "sh"])
    await terminal.shows(prompt.trim())
    return terminal
  }

  /** The screen's lines as text. */
  async screen(): Promise<string> {
    return await this.#tmux(["capture-pane", "-p"])
  }

  async shows(text: string): Promise<void> {
    let seen = ""
    const isShown = async () => {
      seen = await this.screen()
      return seen.includes(text)
    }
    try {
      await until(`"${text}" on the screen`, isShown, { deadlineMs: 20_000 })
    } catch (error) {
      throw new Error(`"${text}" is not on the screen, which shows:\n${seen.trimEnd()}`, { cause: error })
    }
  }

  /** Keys as tmux names them: `C-c`, `Enter`, `Escape`. */
  async press(...keys: string[]): Promise<void> {
    await this.#tmux(["send-keys", ...keys])
  }

  async type(text: string): Promise<void> {
    await this.#tmux(["send-keys", "-l", text])
  }

  /** A command line for the shell. */
  async run(commandLine: string): Promise<void> {
    await this.type(commandLine)
    await this.press("Enter")
  }

  async resize(size: { cols: number; rows: number }): Promise<void> {
    await this.#tmux(["resize-window", "-x", `${size.cols}`, "-y", `${size.rows}`])
  }

  async isOnAlternateScreen(): Promise<boolean> {
    return (await this.#tmux(["display-message", "-p", "#{alternate_on}"])).trim() === "1"
  }

  /** Returns the terminal's modes that a program has switched and not put back. */
  async leftovers(): Promise<string[]> {
    const format = "#{mouse_any_flag} #{cursor_flag} #{keypad_cursor_flag} #{keypad_flag}"
    const [mouse, cursor, arrows, keypad] = (await this.#tmux(["display-message", "-p", format]))
      .trim()
      .split(" ")
    return [
      ...(mouse === "1" ? ["mouse"] : []),
      ...(cursor === "0" ? ["hidden cursor"] : []),
      ...(arrows === "1" ? ["cursor keys"] : []),
      ...(keypad === "1" ? ["keypad"] : []),
      ...((await this.isOnAlternateScreen()) ? ["alternate screen"] : []),
    ]
  }

  /** Pid of the shell in the terminal. */
  async shellPid(): Promise<number> {
    return Number(await this.#tmux(["display-message", "-p", "#{pane_pid}"]))
  }

  /** Pid of what the shell runs. */
  async childPid(): Promise<number> {
    const shell = await this.shellPid()
    let pid = 0
    await until("the shell's command", async () => {
      const children = await Bun.file(`/proc/${shell}/task/${shell}/children`).text()
      pid = Number(children.trim().split(" ")[0] ?? 0)
      return pid > 0
    })
    return pid
  }

  /** The modes a shell needs, as its terminal has them now. */
  async modes(): Promise<string[]> {
    await this.run("clear; stty -a; echo stty-$?")
    await this.shows("stty-0")
    return (await this.screen()).split(/[\s;]+/)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmux(["kill-server"])
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #tmux(args: string[]): Promise<string> {
    const child = Bun.spawn(["tmux", "-S", join(this.#directory, "s"), ...args], {
      env: this.#env,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    })
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ])
    if (exitCode !== 0) throw new Error(`tmux ${args[0]}: ${stderr}`)
    return stdout
  }
}
