/** `bhatti logs` and `bhatti restart` against a daemon without machines. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import { FakeDaemon, failure } from "./fake-daemon.ts"
import { bhatti, environment, program } from "./program.ts"

const daemon = new FakeDaemon()
afterAll(() => daemon[Symbol.dispose]())
beforeEach(() => {
  daemon.sandboxes.clear()
  daemon.answers.clear()
  daemon.requests.length = 0
  daemon.addSandbox("dev")
})

const output = "GET /sandboxes/dev/sessions/init/output"

test("logs prints what a session has shown, byte for byte; without SESSION the init script's", async () => {
  const shown = "one\r\n\x1b[31mred\x1b[0m no line end"
  daemon.answers.set(output, () => new Response(shown))
  daemon.answers.set(output.replace("init", "s1"), () => new Response("of s1\n"))
  expect(await bhatti(["logs", "dev"], { daemon })).toEqual({ stdout: shown, stderr: "", exitCode: 0 })
  expect((await bhatti(["logs", "dev", "s1"], { daemon })).stdout).toBe("of s1\n")
  expect(daemon.requests.filter((one) => one.includes("/output"))).toEqual([
    output,
    output.replace("init", "s1"),
  ])
})

test("logs of a session or a sandbox that is not there, and of none, say so", async () => {
  daemon.answers.set(output, () => failure("not_found", "no session named init"))
  const none = await bhatti(["logs", "dev"], { daemon })
  expect([none.stdout, none.exitCode]).toEqual(["", 1])
  expect(none.stderr).toStartWith("bhatti: no session named init\n")
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
  daemon.answers.set(output, () => {
    let pieces = 0
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        // The first is on its way before the second is asked for.
        controller.enqueue(new Uint8Array(100_000))
        if (pieces++ > 0) controller.error(new Error("gone"))
      },
    })
    return new Response(body)
  })
  const ran = await bhatti(["logs", "dev"], { daemon })
  expect(ran.exitCode).toBe(1)
  expect(ran.stderr).toContain("broke the transfer off")
})

test("a reader that goes away ends logs quietly", async () => {
  daemon.answers.set(output, () => new Response("line\n".repeat(50_000)))
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
  const sandbox = daemon.addSandbox("web")
  daemon.answers.set("POST /sandboxes/web/restart", () => Response.json(sandbox))
  const ran = await bhatti(["restart", "web"], { daemon })
  expect(ran.stdout).toMatch(/^sandbox\/web restarted in \d+\.\d\d s\n$/)
  expect([ran.stderr, ran.exitCode]).toEqual(["", 0])
  const json = await bhatti(["restart", "web", "--json"], { daemon })
  expect(JSON.parse(json.stdout)).toMatchObject({ name: "web", status: "running" })
})

test("restart tries every name once, and fails if one failed", async () => {
  const a = daemon.addSandbox("a")
  const b = daemon.addSandbox("b")
  daemon.answers.set("POST /sandboxes/a/restart", () => Response.json(a))
  daemon.answers.set("POST /sandboxes/b/restart", () => Response.json(b))
  daemon.answers.set("POST /sandboxes/dev/restart", () => failure("unavailable", "it does not boot"))
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
