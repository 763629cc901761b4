/** Ctrl-C while something is being made. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { FakeDaemon } from "./fake-daemon.ts"
import { environment, program, type Ran, until } from "./program.ts"

let daemon: FakeDaemon
beforeEach(() => {
  daemon = new FakeDaemon()
})
afterEach(() => daemon[Symbol.dispose]())

/** Runs it; sends the signals one by one, each when the line before was shown; then lets the daemon answer. */
async function interrupted(
  args: string[],
  options: { path: string; reply: () => Response; signals: NodeJS.Signals[] },
): Promise<Ran> {
  const { promise, resolve } = Promise.withResolvers<void>()
  daemon.answers.set(`POST ${options.path}`, async () => {
    await promise
    return options.reply()
  })
  const child = Bun.spawn([...program, ...args], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  await until("it is being made", () => daemon.requests.includes(`POST ${options.path}`))
  let stderr = ""
  const reading = (async () => {
    for await (const bytes of child.stderr) stderr += new TextDecoder().decode(bytes)
  })()
  for (const signal of options.signals) {
    const before = stderr.length
    child.kill(signal)
    await until("it says something", () => stderr.length > before)
  }
  resolve()
  const [stdout, exitCode] = await Promise.all([child.stdout.text(), child.exited, reading])
  return { stdout, stderr, exitCode }
}

const cancelling = "cancelling; Ctrl-C again leaves that to the daemon\n"

test("Ctrl-C during a create takes it back", async () => {
  const { id } = daemon.addSandbox("dev")
  const reply = () => Response.json(daemon.sandboxes.get("dev"), { status: 201 })
  const ran = await interrupted(["create", "dev"], { path: "/sandboxes", reply, signals: ["SIGINT"] })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}sandbox/dev destroyed: its create was cancelled\n`,
    exitCode: 130,
  })
  expect(daemon.requests.at(-1)).toBe(`DELETE /sandboxes/${id}`)
})

test("SIGTERM takes back all of several, and a copy of a snapshot too", async () => {
  const all = ["w-1", "w-2"].map((name) => daemon.addSandbox(name))
  const several = await interrupted(["create", "w", "--count", "2", "--json"], {
    path: "/sandboxes/batch",
    reply: () => Response.json(all, { status: 201 }),
    signals: ["SIGTERM"],
  })
  expect(several).toMatchObject({ stdout: "", exitCode: 143 })
  expect(daemon.sandboxes.size).toBe(0)

  const copy = daemon.addSandbox("copy")
  const resumed = await interrupted(["snapshot", "resume", "kept"], {
    path: "/snapshots/kept/resume",
    reply: () => Response.json(copy, { status: 201 }),
    signals: ["SIGINT"],
  })
  expect(resumed).toMatchObject({ stdout: "", exitCode: 130 })
  expect(daemon.sandboxes.size).toBe(0)
})

test("what was there before stays", async () => {
  const sandbox = daemon.addSandbox("dev")
  const ran = await interrupted(["create", "dev", "--if-not-exists"], {
    path: "/sandboxes",
    reply: () => Response.json(sandbox, { headers: { "x-bhatti-existing": "true" } }),
    signals: ["SIGINT"],
  })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}cancelled; the sandbox was there before, and stays\n`,
    exitCode: 130,
  })
  expect(daemon.requests).toEqual(["POST /sandboxes"])
})

test("a create that fails after Ctrl-C says why", async () => {
  const ran = await interrupted(["create", "dev"], {
    path: "/sandboxes",
    reply: () => Response.json({ code: "conflict", message: "it exists already" }, { status: 409 }),
    signals: ["SIGINT"],
  })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}bhatti: it exists already\n`,
    exitCode: 1,
  })
})

test("a second Ctrl-C leaves at once", async () => {
  const ran = await interrupted(["create", "dev"], {
    path: "/sandboxes",
    reply: () => Response.json(daemon.addSandbox("dev"), { status: 201 }),
    signals: ["SIGINT", "SIGINT"],
  })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}the daemon removes what was made\n`,
    exitCode: 130,
  })
  expect(daemon.requests).toEqual(["POST /sandboxes"])
})
