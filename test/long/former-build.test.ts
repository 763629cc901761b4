/**
 * Sandboxes of an earlier build under this one: its daemon makes them, ends, and this one serves its data directory.
 * `FORMER` names the revision; by default the last one of generation 2. Needs the repository's history.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { Event } from "@bhatti/contract/event"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { buildFormer, type FormerBuild } from "../support/former-build.ts"
import { binary, type CommandResult, type Installation, install } from "../support/installation.ts"

const revision = process.env["FORMER"] ?? "67f217d"
const built = buildFormer(revision)
if ("reason" in built) console.log(`skipped: ${built.reason}`)

describe.skipIf("reason" in built)(`a sandbox of the build of ${revision}`, () => {
  let own: Installation
  beforeAll(async () => {
    own = await install({ binary: (built as FormerBuild).binary })
    await former("create", "--name", "stopped", "--label", "team=web")
    await former("create", "--name", "runs", "--init", "echo said by init; exec sleep 100000")
    await former("create", "--name", "booted")
    await former("restart", "booted")
    for (const name of ["stopped", "runs", "booted"]) {
      const count = "(while :; do date +%s%N > /dev/shm/tick; sleep 0.1; done) > /dev/null 2>&1 &"
      const begin = `echo ${name} > /dev/shm/nonce; echo ${name} > /workspace/file; ${count} echo $! > /dev/shm/pid`
      await former("exec", name, "--", "sh", "-c", begin)
    }
    await former("snapshot", "create", "stopped", "--name", "before")
    await former("stop", "stopped", "booted")
    await own.stopDaemon("SIGTERM")
    await own.startDaemon({ binary })
  }, 900_000)
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
    if ("binary" in built) built[Symbol.dispose]()
  }, 120_000)

  const former = async (...args: string[]) => expectOk(args, await own.bhatti(args))
  const present = async (...args: string[]) => expectOk(args, await own.bhatti(args, { binary }))
  const lookAt = (name: string) =>
    present(
      "exec",
      name,
      "--",
      "sh",
      "-c",
      "cat /dev/shm/nonce /workspace/file; kill -0 $(cat /dev/shm/pid) && echo runs",
    )
  const lastWake = async (name: string) => {
    const asked = ["events", "--sandbox", name, "--type", "thermal.wake", "--limit", "100", "--json"]
    const events = JSON.parse(await present(...asked)) as Event[]
    return events.toSorted((one, other) => one.ts.localeCompare(other.ts)).at(-1)?.meta
  }

  test("that runs is taken over, with its processes, and stops and wakes with its memory", async () => {
    expect(await lookAt("runs")).toBe("runs\nruns\nruns\n")
    await present("stop", "runs")
    expect(await lookAt("runs")).toBe("runs\nruns\nruns\n")
    expect(await lastWake("runs")).toMatchObject({ how: "memory", reason: null })
  }, 120_000)

  test.each(["stopped", "booted"])(
    "that was %s wakes with its memory",
    async (name) => {
      expect(await lookAt(name)).toBe(`${name}\n${name}\nruns\n`)
      expect(await lastWake(name)).toMatchObject({ from: "cold", how: "memory", reason: null })
      await present("stop", name)
      expect(await lookAt(name)).toBe(`${name}\n${name}\nruns\n`)
    },
    120_000,
  )

  test("keeps its sessions, whose output can be read", async () => {
    expect(await present("ps", "runs")).toContain("init")
    expect(await present("logs", "runs")).toContain("said by init")
    const echo = await own.bhatti(["exec", "-i", "runs", "--", "cat"], { binary, stdin: "typed\n" })
    expect(echo.stdout).toBe("typed\n")
  }, 120_000)

  test("goes on in forks, and so does its named snapshot", async () => {
    await present("create", "--from", "runs", "--name", "forked")
    expect(await lookAt("forked")).toBe("runs\nruns\nruns\n")
    const resumed = JSON.parse(await present("snapshot", "resume", "before", "--name", "resumed", "--json"))
    expect(resumed as Sandbox).toMatchObject({ labels: { team: "web" }, status_reason: null })
    expect(await lookAt("resumed")).toBe("stopped\nstopped\nruns\n")
  }, 120_000)

  test("gets the agent of this build when it is restarted, and new sandboxes have it", async () => {
    await present("restart", "runs")
    expect(await present("exec", "runs", "--", "cat", "/workspace/file")).toBe("runs\n")
    await present("create", "--name", "new")
    expect(await present("exec", "new", "--", "echo", "hello")).toBe("hello\n")
    await present("destroy", "new", "runs", "forked", "resumed", "--yes")
  }, 180_000)
})

function expectOk(args: string[], { exitCode, stdout, stderr }: CommandResult): string {
  expect([args[0], exitCode, exitCode === 0 ? "" : stderr]).toEqual([args[0], 0, ""])
  return stdout
}
