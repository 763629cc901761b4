/** Commands that are kept: started without a client, seen, read, waited for, attached to and killed. */

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

async function run(args: string[]): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  return await bhatti(args, { daemon })
}

test("exec --detach prints the id, and the process is found by it", async () => {
  const { stdout, exitCode } = await run(["exec", "-d", "--name", "job", "dev", "--", "both"])
  const id = stdout.trim()
  expect([exitCode, id]).toEqual([0, expect.stringMatching(/^p[0-9]+$/)])
  expect((await run(["wait", "dev", id])).exitCode).toBe(0)
  const both = { stdout: "out 1\nout 2\n", stderr: "err 1\n", exitCode: 0 }
  expect(await run(["logs", "dev", "job"])).toEqual(both)
  expect(await run(["logs", "dev", id, "--stderr"])).toEqual({ ...both, stdout: "" })
  expect(await run(["logs", "dev", id, "-f", "--stdout"])).toEqual({ ...both, stderr: "" })
  expect((await run(["ps", "dev"])).stdout).toMatch(/p[0-9]+ +job +command +both +exited 0/)
  const forgotten = { stdout: `command/${id} of dev had ended; it is kept no longer\n` }
  expect(await run(["kill", "dev", id])).toMatchObject(forgotten)
  expect((await run(["exec", "dev", "--", "echo"])).exitCode).toBe(0)
  expect((await run(["ps", "dev"])).stderr).toContain("nothing is kept")
  expect(JSON.parse((await run(["ps", "dev", "--json"])).stdout)).toEqual([])
})

test("wait ends with the command's code, or with 124", async () => {
  await run(["exec", "-d", "--name", "seven", "dev", "--", "exit", "7"])
  expect((await run(["wait", "dev", "seven"])).exitCode).toBe(7)
  await run(["exec", "-d", "--name", "long", "dev", "--", "sleep"])
  const late = await run(["wait", "dev", "long", "--timeout", "0.05"])
  expect(late).toEqual({ stdout: "", stderr: "bhatti: long still runs\n", exitCode: 124 })
  const waiting = run(["wait", "dev", "long"])
  await run(["kill", "dev", "long", "--signal", "TERM"])
  expect(await waiting).toMatchObject({ stderr: "bhatti: killed by TERM (client)\n", exitCode: 143 })
})

test("a process whose own time is over ends wait and attach with 124, as it does exec", async () => {
  await run(["exec", "-d", "--name", "limited", "--timeout", "0.2", "dev", "--", "sleep"])
  const attached = run(["attach", "dev", "limited"])
  const over = { stderr: "bhatti: killed: its time is over\n", exitCode: 124 }
  expect(await run(["wait", "dev", "limited"])).toMatchObject(over)
  expect(await attached).toMatchObject({ exitCode: 124 })
  expect(await run(["wait", "dev", "limited", "--json"])).toMatchObject({ exitCode: 124 })
  expect((await run(["exec", "--timeout", "0.2", "dev", "--", "sleep"])).exitCode).toBe(124)
})

test("logs --json has lines in the order in which the output came, and the end", async () => {
  await run(["exec", "-d", "--name", "lines", "dev", "--", "both"])
  await run(["wait", "dev", "lines"])
  const linesOf = async (...more: string[]) =>
    (await run(["logs", "dev", "lines", "--json", ...more])).stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
  const exit = expect.objectContaining({ type: "exit", exit_code: 0, reason: "exited" })
  const [first, error, last] = [
    { type: "stdout", data: "out 1\n" },
    { type: "stderr", data: "err 1\n" },
    { type: "stdout", data: "out 2\n" },
  ]
  expect(await linesOf()).toEqual([first, error, last, exit])
  expect(await linesOf("--follow")).toEqual([first, error, last, exit])
  expect(await linesOf("--stderr")).toEqual([error, exit])
  const mixed = Bun.spawn(["sh", "-c", 'exec "$@" 2>&1', "sh", ...program, "logs", "dev", "lines"], {
    env: environment(daemon),
    stdout: "pipe",
  })
  expect(await mixed.stdout.text()).toBe("out 1\nerr 1\nout 2\n")
  await run(["exec", "-d", "-i", "--name", "running", "dev", "--", "cat"])
  expect(await run(["logs", "dev", "running", "--json"])).toEqual({ stdout: "", stderr: "", exitCode: 0 })
  const late = await run(["wait", "dev", "running", "--timeout", "0.05", "--json"])
  expect([late.exitCode, JSON.parse(late.stdout)]).toMatchObject([124, { name: "running", running: true }])
})

test("attach shows what was printed, and -i types into it", async () => {
  await run(["exec", "-d", "-i", "--name", "cat", "dev", "--", "cat"])
  const watching = run(["attach", "dev", "cat", "--watch"])
  await until("it is watched", () => daemon.lastProcess.watchers.size === 1)
  expect(await bhatti(["attach", "-i", "dev", "cat"], { daemon, stdin: "hello" })).toMatchObject({
    stdout: "hello",
  })
  expect(await watching).toMatchObject({ stdout: "hello", exitCode: 0 })
  expect((await run(["attach", "dev", "p99"])).stderr).toContain("try: bhatti ps dev")
})

test("attach -i to a process that takes no input is refused; without -i its output is shown", async () => {
  await run(["exec", "-d", "--name", "deaf", "dev", "--", "sleep"])
  expect(await bhatti(["attach", "-i", "dev", "deaf"], { daemon, stdin: "hello" })).toEqual({
    stdout: "",
    stderr:
      'bhatti: process "deaf" takes no input: it was started without -i, or its input has ended\n  try: bhatti exec -d -i dev -- COMMAND\n',
    exitCode: 125,
  })
  const shown = run(["attach", "dev", "deaf"])
  await until("it is watched", () => daemon.lastProcess.watchers.size === 1)
  await run(["kill", "dev", "deaf"])
  expect((await shown).exitCode).toBe(137)
  await run(["exec", "-d", "--name", "over", "dev", "--", "both"])
  await run(["wait", "dev", "over"])
  expect(await bhatti(["attach", "-i", "dev", "over"], { daemon, stdin: "" })).toMatchObject({ exitCode: 0 })
})

test("attach types into a terminal, and Ctrl+\\ leaves it running", async () => {
  daemon.host.sessionProgram = "keys"
  const id = (await run(["exec", "-d", "-t", "dev", "--", "sh"])).stdout.trim()
  await using screen = new Screen(daemon)
  await screen.bhatti(`attach dev ${id}`)
  await screen.shows("size 30x100 xterm\r\n")
  screen.type("x")
  await screen.shows("key 78\r\n")
  screen.type("\x1c")
  await screen.shows("left; it keeps running")
  await screen.shows("code=0")
  await screen.restored()
  expect((await run(["ps", "dev"])).stdout).toMatch(new RegExp(`${id} +- +session +sh +running +no`))
})

test("keys typed while a process is watched are not left for the shell", async () => {
  await run(["exec", "-d", "-i", "--name", "watched", "dev", "--", "cat"])
  await using screen = new Screen(daemon)
  await screen.bhatti("attach -w dev watched")
  await until("it is watched", () => daemon.lastProcess.watchers.size === 1)
  screen.type("echo LEFT-$((40 + 2))\r")
  await screen.shows("LEFT-$((40 + 2))")
  screen.type("\x03")
  await screen.shows("code=0")
  await screen.restored()
  expect(screen.text).not.toContain("LEFT-42")
})

test("Ctrl-C leaves what logs -f follows", async () => {
  await run(["exec", "-d", "-i", "--name", "followed", "dev", "--", "cat"])
  await using screen = new Screen(daemon)
  await screen.bhatti("logs -f dev followed")
  await until("it is read", () => daemon.lastProcess.watchers.size === 1)
  screen.type("\x03")
  await screen.shows("code=0")
  expect(screen.text).not.toContain("the stream was closed")
})

test("ids and names are completed", async () => {
  expect((await run(["__complete", "--", "wait", "dev", ""])).stdout).toContain("seven")
})
