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
  options: { method?: string; path: string; reply: () => Response; signals: NodeJS.Signals[] },
): Promise<Ran> {
  const asked = `${options.method ?? "POST"} ${options.path}`
  const { promise, resolve } = Promise.withResolvers<void>()
  daemon.answers.set(asked, async () => {
    await promise
    return options.reply()
  })
  daemon.requests.length = 0
  const child = Bun.spawn([...program, ...args], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  await until("it is being made", () => daemon.requests.includes(asked))
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

test("what the daemon finishes in any case is said to go on, and the signal ends us", async () => {
  const dev = daemon.addSandbox("dev")
  for (const [args, path, words] of [
    [
      ["stop", "dev"],
      "/sandboxes/dev/stop",
      "not waited for: dev is still being stopped; see: bhatti list\n",
    ],
    [
      ["start", "dev"],
      "/sandboxes/dev/start",
      "not waited for: dev is still being started; see: bhatti list\n",
    ],
    [
      ["snapshot", "create", "dev", "-n", "kept"],
      "/sandboxes/dev/checkpoint",
      "not waited for: the snapshot is still being made; see: bhatti snapshot list\n",
    ],
  ] as const) {
    for (const [signal, exitCode] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ] as const) {
      const reply = () => Response.json(dev)
      const ran = await interrupted([...args], { path, reply, signals: [signal] })
      expect(ran).toEqual({ stdout: "", stderr: words, exitCode })
    }
  }
})

test("a destroy that is not waited for goes on too", async () => {
  daemon.addSandbox("dev")
  const ran = await interrupted(["destroy", "-y", "dev", "other"], {
    method: "DELETE",
    path: "/sandboxes/dev",
    reply: () => Response.json({ status: "destroyed" }),
    signals: ["SIGINT"],
  })
  expect(ran).toMatchObject({ stdout: "", exitCode: 130 })
  expect(ran.stderr).toEndWith("not waited for: dev, other are still being destroyed; see: bhatti list\n")
})
