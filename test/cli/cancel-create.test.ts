/** Ctrl-C while something is being made. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Held } from "../support/fake-host.ts"
import { Daemon } from "./daemon.ts"
import { environment, program, type Ran, until } from "./program.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
})
afterEach(() => daemon[Symbol.asyncDispose]())

/**
 * Runs it; sends the signals one by one, each when the line before was shown, while the host is at a step; then lets
 * that go on.
 */
async function interrupted(
  args: string[],
  options: { during: string | Held; signals: NodeJS.Signals[]; whileHeld?: () => Promise<void> },
): Promise<Ran> {
  const { during } = options
  const held = typeof during === "string" ? daemon.host.hold(during) : during
  daemon.sent.length = 0
  const child = Bun.spawn([...program, ...args], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  await held.reached
  let stderr = ""
  const reading = (async () => {
    for await (const bytes of child.stderr) stderr += new TextDecoder().decode(bytes)
  })()
  for (const signal of options.signals) {
    const before = stderr.length
    child.kill(signal)
    await until("it says something", () => stderr.length > before)
  }
  await options.whileHeld?.()
  held.release()
  const [stdout, exitCode] = await Promise.all([child.stdout.text(), child.exited, reading])
  return { stdout, stderr, exitCode }
}

const cancelling = "cancelling; Ctrl-C again leaves that to the daemon\n"

test("Ctrl-C during a create takes it back", async () => {
  const ran = await interrupted(["create", "dev"], { during: "clone", signals: ["SIGINT"] })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}sandbox/dev destroyed: its create was cancelled\n`,
    exitCode: 130,
  })
  expect(daemon.requests.at(-1)).toMatch(/^DELETE \/sandboxes\/sb_[0-9a-f]{16}$/)
  expect(await daemon.names()).toEqual([])
})

test("SIGTERM takes back all of several, and a copy of a snapshot too", async () => {
  const several = await interrupted(["create", "w", "--count", "2", "--json"], {
    during: "clone",
    signals: ["SIGTERM"],
  })
  expect(several).toMatchObject({ stdout: "", exitCode: 143 })
  expect(daemon.requests.filter((one) => one.startsWith("DELETE"))).toHaveLength(2)
  expect(await daemon.names()).toEqual([])

  await daemon.sandbox("dev")
  await daemon.call("POST", "/sandboxes/dev/checkpoint", { name: "kept" })
  const resumed = await interrupted(["snapshot", "resume", "kept"], { during: "place", signals: ["SIGINT"] })
  expect(resumed).toMatchObject({ stdout: "", exitCode: 130 })
  expect(await daemon.names()).toEqual(["dev"])
})

test("what was there before stays", async () => {
  await daemon.sandbox("dev")
  const held = daemon.hold("POST /sandboxes")
  const ran = await interrupted(["create", "dev", "--if-not-exists"], { during: held, signals: ["SIGINT"] })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}cancelled; the sandbox was there before, and stays\n`,
    exitCode: 130,
  })
  expect(daemon.requests).toEqual(["POST /sandboxes"])
  expect(await daemon.names()).toEqual(["dev"])
})

test("a create that fails after Ctrl-C says why", async () => {
  const ran = await interrupted(["create", "dev"], {
    during: "clone",
    signals: ["SIGINT"],
    whileHeld: async () => {
      daemon.host.failAt = "clone"
    },
  })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}bhatti: injected at clone\n`,
    exitCode: 1,
  })
})

test("a second Ctrl-C leaves at once", async () => {
  const ran = await interrupted(["create", "dev"], {
    during: "clone",
    signals: ["SIGINT", "SIGINT"],
    whileHeld: () => until("the daemon to see us gone", () => daemon.connections === 0),
  })
  expect(ran).toEqual({
    stdout: "",
    stderr: `${cancelling}left before the answer: the daemon removes what was made; to check: bhatti list\n`,
    exitCode: 130,
  })
  expect(daemon.requests).toEqual(["POST /sandboxes"])
  await until("the daemon to remove it", () => daemon.host.directories.size === 0)
})

test("a second Ctrl-C while the answer is on its way leaves nothing behind", async () => {
  await daemon.sandbox("source")
  await daemon.call("POST", "/sandboxes/source/checkpoint", { name: "kept" })
  for (const [args, route] of [
    [["create", "dev"], "POST /sandboxes"],
    [["create", "--from", "source"], "POST /sandboxes"],
    [["create", "w", "--count", "2"], "POST /sandboxes/batch"],
    [["snapshot", "resume", "kept"], "POST /snapshots/kept/resume"],
  ] as const) {
    const others = daemon.connections
    await interrupted([...args], {
      during: daemon.hold(route, "answer"),
      signals: ["SIGINT", "SIGINT"],
      whileHeld: () => until("the daemon to see us gone", () => daemon.connections <= others),
    })
    await until("all of it is removed", () => daemon.host.directories.size === 1)
  }
})

test("a create that is finished just after a second Ctrl-C is removed", async () => {
  for (let round = 0; round < 3; round++) {
    const answered = daemon.hold("POST /sandboxes", "answer")
    const child = Bun.spawn([...program, "create", "dev"], {
      env: environment(daemon),
      stdio: ["ignore", "ignore", "pipe"],
    })
    await answered.reached
    child.kill("SIGINT")
    await child.stderr.getReader().read()
    child.kill("SIGINT")
    expect(await child.exited).toBe(130)
    answered.release()
    await until("it is removed", () => daemon.host.directories.size === 0)
  }
})

test("a second Ctrl-C while several are taken back leaves none of them", async () => {
  const answered = daemon.hold("POST /sandboxes/batch", "answer")
  const child = Bun.spawn([...program, "create", "w", "--count", "3"], {
    env: environment(daemon),
    stdio: ["ignore", "ignore", "pipe"],
  })
  await answered.reached
  child.kill("SIGINT")
  const words = child.stderr.getReader()
  await words.read()
  const destroying = daemon.host.hold("kill")
  answered.release()
  await destroying.reached
  child.kill("SIGINT")
  expect(await child.exited).toBe(130)
  destroying.release()
  await until("all of them are removed", () => daemon.host.directories.size === 0)
})

test("what the daemon finishes in any case is said to go on, and the signal ends us", async () => {
  await daemon.sandbox("dev")
  for (const [args, during, words, back] of [
    [
      ["stop", "dev"],
      "save",
      "stopped waiting: dev is still being stopped; see: bhatti list\n",
      () => daemon.call("POST", "/sandboxes/dev/start"),
    ],
    [
      ["snapshot", "create", "dev", "-n", "kept"],
      "capture",
      "stopped waiting: the snapshot is still being made; see: bhatti snapshot list\n",
      () => daemon.call("DELETE", "/snapshots/kept"),
    ],
    [
      ["start", "dev"],
      "restore",
      "stopped waiting: dev is still being started; see: bhatti list\n",
      () => daemon.call("POST", "/sandboxes/dev/stop"),
    ],
  ] as const) {
    if (during === "restore") await daemon.call("POST", "/sandboxes/dev/stop")
    for (const [signal, exitCode] of [
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ] as const) {
      const ran = await interrupted([...args], { during, signals: [signal] })
      expect(ran).toEqual({ stdout: "", stderr: words, exitCode })
      await back()
    }
  }
})

test("a destroy that is not waited for goes on too", async () => {
  await daemon.sandbox("dev")
  const ran = await interrupted(["destroy", "-y", "dev", "other"], { during: "kill", signals: ["SIGINT"] })
  expect(ran).toMatchObject({ stdout: "", exitCode: 130 })
  expect(ran.stderr).toEndWith("stopped waiting: dev, other are still being destroyed; see: bhatti list\n")
})
