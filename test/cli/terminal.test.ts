/** `bhatti exec` at a real terminal: raw mode and its end, sizes, Ctrl-C. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"
import { Screen } from "./screen.ts"

let daemon: Daemon
beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev")
})
afterAll(() => daemon[Symbol.asyncDispose]())

test("-t gives the command a terminal of our size, every key, and ours back afterwards", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec -t dev terminal")
  await screen.shows("size 30x100 xterm\r\n")
  screen.resize({ cols: 120, rows: 40 })
  await screen.shows("resized 40x120\r\n")
  screen.type("\x03")
  await screen.shows("key 3\r\n")
  screen.type("\x1a\x04")
  await screen.shows("key 1a\r\nkey 4\r\n")
  screen.type("q")
  await screen.shows("code=5")
  await screen.restored()
})

test("a type of terminal that sandboxes do not know goes by the name of one they do", async () => {
  for (const [own, told] of [
    ["xterm-kitty", "xterm-256color"],
    ["xterm-ghostty", "xterm-256color"],
    ["alacritty", "xterm-256color"],
    ["", "xterm-256color"],
    ["tmux-256color", "tmux-256color"],
    ["dumb", "dumb"],
  ] as const) {
    await using screen = new Screen(daemon, { TERM: own })
    await screen.bhatti("exec -t dev terminal")
    await screen.shows(`size 30x100 ${told}\r\n`)
    screen.type("q")
    await screen.restored()
  }
})

for (const signal of ["SIGTERM", "SIGHUP"] as const)
  test(`the terminal is given back after ${signal}`, async () => {
    await using screen = new Screen(daemon)
    daemon.execs.length = 0
    await screen.bhatti("exec -t dev sleep")
    await until("the command to run", () => daemon.execs.at(-1)?.start?.cmd[0] === "sleep")
    process.kill(await screen.programPid(), signal)
    await screen.shows(signal === "SIGTERM" ? "code=143" : "code=129")
    await screen.restored()
  })

test("the terminal is given back when the daemon goes away", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec -t --reconnect 0.2 dev ready")
  await screen.shows("ready\n")
  daemon.isAway = true
  daemon.lastExec.cut()
  await screen.shows("code=125")
  daemon.isAway = false
  await screen.restored()
})

test("what a lost program has switched on the screen is switched back", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec -t --reconnect 0.2 dev alternate")
  await screen.shows("\x1b[?1049h\x1b[?25l")
  daemon.isAway = true
  daemon.lastExec.cut()
  await screen.shows("code=125")
  daemon.isAway = false
  expect(screen.text).toContain("\x1b[?25h\x1b[?1049l")
  await screen.restored()
})

test("Ctrl-C without -t interrupts the command in the sandbox", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec dev polite")
  await screen.shows("ready\r\n")
  screen.type("\x03")
  await screen.shows("cleaning up")
  await until("the interrupt", () => daemon.lastExec.signals.includes("INT"))
})

// Two at a time, since each waits two seconds for its words.
const execOf = (program: string) => daemon.execs.findLast(({ start }) => start?.cmd[0] === program)

test.concurrent("a command that is slow to end after Ctrl-C: how to kill it is said, and works", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec dev stubborn")
  await screen.shows("ready\r\n")
  screen.type("\x03")
  await screen.shows("bhatti: the command is still ending; press Ctrl-C again to kill it\r\n")
  screen.type("\x03")
  await screen.shows("code=130")
  expect(execOf("stubborn")?.signals).toEqual(["INT", "KILL"])
})

test.concurrent("a command that was told of may still end by itself, with its own exit code", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("exec dev tidy")
  await screen.shows("ready\r\n")
  screen.type("\x03")
  await screen.shows("press Ctrl-C again to kill it\r\n")
  daemon.host.processes.find(({ command }) => command.argv[0] === "tidy")?.released.resolve()
  await screen.shows("code=7")
  expect(execOf("tidy")?.signals).toEqual(["INT"])
})

test("create says what to type next; with a script, how to see it run", async () => {
  await using screen = new Screen(daemon)
  await screen.bhatti("create --name one")
  await screen.shows("try: bhatti exec one -- uname -a")
  await screen.restored()
  await using other = new Screen(daemon)
  await other.bhatti("create --name two --init 'npm install'")
  await other.shows("try: bhatti shell two init")
  await other.restored()
})

test("-t without a terminal still gives the command one; with -i it is refused before anything is made", async () => {
  const child = Bun.spawn([...program, "exec", "-t", "dev", "terminal"], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
  })
  const shown = await child.stdout.getReader().read()
  expect(new TextDecoder().decode(shown.value)).toBe("size 24x80 xterm\r\n")
  child.kill("SIGTERM")
  expect(await child.exited).toBe(143)
  const asked = daemon.requests.length
  for (const [args, tool] of [
    [["exec", "-it", "dev", "bash"], "exec"],
    [["run", "--rm", "-it", "workspace", "bash"], "run"],
  ] as const)
    expect(await bhatti(args, { daemon, stdin: "" })).toEqual({
      stdout: "",
      stderr: `bhatti: ${tool} -it needs a terminal for input\n  try: bhatti ${tool} -i   (without -t, input may come from a pipe or a file)\n`,
      exitCode: 125,
    })
  expect(daemon.requests.length).toBe(asked)
})
