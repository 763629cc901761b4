/** `bhatti exec` at a real terminal: raw mode and its end, sizes, Ctrl-C. */

import { afterAll, expect, test } from "bun:test"
import { FakeDaemon } from "./fake-daemon.ts"
import { environment, program, until } from "./program.ts"

const daemon = new FakeDaemon()
daemon.addSandbox("dev")
afterAll(() => daemon[Symbol.dispose]())

/** A shell at a terminal, so that the terminal and its modes outlive the program. */
class Screen {
  text = ""
  readonly shell: Bun.Subprocess
  readonly #decoder = new TextDecoder()

  constructor() {
    this.shell = Bun.spawn(["sh"], {
      env: environment(daemon, { PS1: "ready> " }),
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

  async shows(text: string): Promise<void> {
    await until(`${JSON.stringify(text)} on the screen, which shows ${JSON.stringify(this.text)}`, () =>
      this.text.includes(text),
    )
  }

  async exec(args: string): Promise<void> {
    await this.shows("ready> ")
    // The quotes keep the typed line itself from looking like the answer.
    this.type(`${program.join(" ")} exec ${args}; echo "code"=$?; stty -a; echo "do""ne"\n`)
  }

  async restored(): Promise<void> {
    await this.shows("done\r\n")
    const modes = this.text.slice(this.text.lastIndexOf("code=")).split(/[\s;]+/)
    for (const mode of ["icanon", "isig", "echo", "opost", "icrnl"]) expect(modes).toContain(mode)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.shell.kill("SIGKILL")
    await this.shell.exited
  }
}

test("-t gives the command a terminal of our size, every key, and ours back afterwards", async () => {
  await using screen = new Screen()
  await screen.exec("-t dev terminal")
  await screen.shows("size 30x100 xterm\r\n")
  screen.shell.terminal?.resize(120, 40)
  await screen.shows("resized 40x120\r\n")
  screen.type("\x03")
  await screen.shows("key 3\r\n")
  screen.type("\x1a\x04")
  await screen.shows("key 1a\r\nkey 4\r\n")
  screen.type("q")
  await screen.shows("code=5")
  await screen.restored()
})

for (const signal of ["SIGTERM", "SIGHUP"] as const)
  test(`the terminal is given back after ${signal}`, async () => {
    await using screen = new Screen()
    daemon.runs.length = 0
    await screen.exec("-t dev sleep")
    await until("the command to run", () => daemon.runs.at(-1)?.start?.cmd[0] === "sleep")
    const children = await Bun.file(`/proc/${screen.shell.pid}/task/${screen.shell.pid}/children`).text()
    process.kill(Number(children.trim()), signal)
    await screen.shows(signal === "SIGTERM" ? "code=143" : "code=129")
    await screen.restored()
  })

test("the terminal is given back when the daemon goes away", async () => {
  await using screen = new Screen()
  await screen.exec("-t dev drop")
  await screen.shows("code=125")
  await screen.restored()
})

test("Ctrl-C without -t interrupts the command in the sandbox", async () => {
  await using screen = new Screen()
  await screen.exec("dev polite")
  await screen.shows("ready\r\n")
  screen.type("\x03")
  await screen.shows("cleaning up")
  await until("the interrupt", () => daemon.lastRun.signals.includes("INT"))
})

test("-t without a terminal still gives the command one", async () => {
  const child = Bun.spawn([...program, "exec", "-t", "-i", "dev", "terminal"], {
    env: environment(daemon),
    stdin: new TextEncoder().encode("q"),
    stdout: "pipe",
  })
  expect(await child.stdout.text()).toBe("size 24x80 xterm\r\nkey 71\r\n")
  expect(await child.exited).toBe(5)
})
