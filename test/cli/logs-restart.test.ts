/** `bhatti logs` and `bhatti restart` against the real application on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program } from "./program.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev", { init: "serve" })
})
afterEach(() => daemon[Symbol.asyncDispose]())

const output = "GET /sandboxes/dev/sessions/init/output"

test("logs prints what a session has shown, byte for byte; without SESSION the init script's", async () => {
  const shown = "one\r\n\x1b[31mred\x1b[0m no line end"
  daemon.host.shownBy = (session) => [Buffer.from(session === "init" ? shown : `of ${session}\n`)]
  expect(await bhatti(["logs", "dev"], { daemon })).toEqual({ stdout: shown, stderr: "", exitCode: 0 })
  expect((await bhatti(["logs", "dev", "s1"], { daemon })).stdout).toBe("of s1\n")
  expect(daemon.requests.filter((one) => one.includes("/output"))).toEqual([
    output,
    output.replace("init", "s1"),
  ])
})

test("logs of a session or a sandbox that is not there, and of none, say so", async () => {
  await daemon.sandbox("plain")
  const none = await bhatti(["logs", "plain"], { daemon })
  expect([none.stdout, none.exitCode]).toEqual(["", 1])
  expect(none.stderr).toBe(
    'bhatti: sandbox "plain" has no session "init"\n  no session was started since it booted\n',
  )
  const missing = await bhatti(["logs", "missing"], { daemon })
  expect([missing.stdout, missing.stderr, missing.exitCode]).toEqual([
    "",
    'bhatti: no sandbox named "missing"\n  try: bhatti list\n',
    1,
  ])
  const without = await bhatti(["logs"], { daemon })
  expect([without.stderr.split("\n")[0], without.exitCode]).toEqual(["bhatti: SANDBOX is missing", 2])
})

test("logs that break off are an error", async () => {
  daemon.host.shownBy = async function* () {
    yield new Uint8Array(100_000)
    throw new AppError("unavailable", "the guest does not read")
  }
  const ran = await bhatti(["logs", "dev"], { daemon })
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("the daemon aborted the transfer")
})

test("a reader that goes away ends logs quietly", async () => {
  daemon.host.shownBy = () => [Buffer.from("line\n".repeat(50_000))]
  const child = Bun.spawn(
    ["bash", "-c", '"$@" | head -n 1; echo "$PIPESTATUS"', "bash", ...program, "logs", "dev"],
    {
      env: environment(daemon),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
  expect([stdout, stderr]).toEqual(["line\n141\n", ""])
})

test("restart says what was done, and --json prints the sandbox", async () => {
  await daemon.sandbox("web")
  const ran = await bhatti(["restart", "web"], { daemon })
  expect(ran.stdout).toMatch(/^sandbox\/web restarted in \d+\.\d\d s\n$/)
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
  const json = await bhatti(["restart", "web", "--json"], { daemon })
  expect(JSON.parse(json.stdout)).toMatchObject({ name: "web", status: "running" })
})

test("restart tries every name once, and fails if one failed", async () => {
  for (const name of ["a", "b"]) await daemon.sandbox(name)
  const { start } = daemon.host.machines
  const { id } = (await daemon.call("GET", "/sandboxes/dev")).body as { id: string }
  daemon.host.machines.start = async (place, from) => {
    if (place.id === id) throw new AppError("unavailable", "it does not boot")
    return start(place, from)
  }
  const ran = await bhatti(["restart", "a", "missing", "dev", "b", "a"], { daemon })
  expect(ran.stdout).toMatch(/^sandbox\/a restarted in .*\nsandbox\/b restarted in .*\n$/)
  expect(ran.stderr).toContain('bhatti: no sandbox named "missing"\n')
  expect(ran.stderr).toContain("it does not boot")
  expect(ran.exitCode).toBe(1)
  expect(daemon.requests.filter((one) => one.endsWith("/restart"))).toEqual(
    ["a", "missing", "dev", "b"].map((name) => `POST /sandboxes/${name}/restart`),
  )
  const without = await bhatti(["restart"], { daemon })
  expect([without.stderr.split("\n")[0], without.exitCode]).toEqual(["bhatti: SANDBOX is missing", 2])
})
