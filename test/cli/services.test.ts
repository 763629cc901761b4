/** Services and start commands on the command line, against the real application on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { Daemon } from "./daemon.ts"
import { bhatti } from "./program.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
})
afterEach(() => daemon[Symbol.asyncDispose]())

const run = async (...args: string[]) => {
  const { stdout, stderr, exitCode } = await bhatti(args, { daemon })
  return exitCode === 0 ? stdout : `${exitCode}: ${stderr}`
}
const words = (text: string) => text.split("\n").map((line) => line.trim().split(/ {2,}/))

test("create names services and their policies; list, ps and inspect show them", async () => {
  await run(
    "create",
    "--name",
    "app",
    "--service",
    "db=redis-server",
    "--service",
    "web:on-failure=npm start",
  )
  const table = [
    ["SERVICE", "STATE", "RESTARTS", "POLICY", "PROCESS", "COMMAND"],
    ["db", "running", "0", "always", "p1", "redis-server"],
    ["web", "running", "0", "on-failure", "p1", "npm start"],
    [""],
  ]
  expect(words(await run("service", "list", "app"))).toEqual(table)
  expect(words(await run("ps", "app")).slice(0, 3)).toEqual(table.slice(0, 3))
  const inspected = words(await run("inspect", "app"))
  expect(inspected).toContainEqual(["service db", "redis-server"])
  await daemon.sandbox("plain")
  expect(await run("service", "list", "plain")).toBe("")
})

test("a service is stopped, started and restarted, and a failing one is named", async () => {
  await run("create", "--name", "app", "--service", "db=redis-server")
  expect(await run("service", "stop", "app", "db")).toBe("service/db of app stopped\n")
  expect(words(await run("service", "list", "app"))[1]?.[1]).toBe("stopped")
  expect(await run("service", "start", "app", "db")).toBe("service/db of app started\n")
  expect(await run("service", "restart", "app", "db")).toBe("service/db of app restarted\n")
  expect(await run("service", "restart", "app", "other")).toBe('1: bhatti: no service "other"\n')
  daemon.host.failService("db", 3)
  expect(await run("why", "app")).toContain("  its service db keeps failing: it exited with 3 (5 restarts)\n")
  expect(words(await run("service", "list", "app"))[1]?.[1]).toBe("running, failing")
})

test("edit adds, replaces and removes services, and says what is left", async () => {
  await run("create", "--name", "app", "--service", "db=redis-server", "--service", "old=old")
  const edited = await run("edit", "app", "--service", "web:never=npm start", "--service-remove", "old")
  expect(edited).toContain("services db web")
  expect(words(await run("service", "list", "app")).slice(1, 3)).toEqual([
    ["db", "running", "0", "always", "p1", "redis-server"],
    ["web", "running", "0", "never", "p1", "npm start"],
  ])
  expect(await run("edit", "app", "--service", "x=missing")).toStartWith(
    '2: bhatti: a service cannot be started: no program "missing"',
  )
})

test("a start command is shown, and words that cannot be are refused", async () => {
  await run("create", "--name", "site", "--start", "serve", "--ready", "true")
  expect(words(await run("inspect", "site"))).toContainEqual(["runs", "serve"])
  expect(await run("create", "--ready", "true")).toStartWith("2: bhatti: --ready needs --start")
  for (const bad of ["web", "=npm start", "web=", "web:sometimes=npm start"])
    expect(await run("create", "--service", bad)).toStartWith(
      `2: bhatti: --service ${bad}: it must be NAME=COMMAND`,
    )
})
