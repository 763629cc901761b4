/** `bhatti run` against the real application on a fake host: the program, its exit code, and what stays of it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { Daemon } from "./daemon.ts"
import { bhatti } from "./program.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
  const none = { user: "", workdir: "", env: {}, ports: [], labels: {} }
  daemon.host.imageConfig = { ...none, entrypoint: ["echo", "from"], cmd: ["the", "image"] }
})
afterEach(() => daemon[Symbol.asyncDispose]())

const run = (...args: string[]) => bhatti(["run", ...args], { daemon })
const names = async () => (await bhatti(["list", "-q"], { daemon })).stdout.trim()

test("the entrypoint runs with the image's words or with those given, and --rm removes the sandbox", async () => {
  expect(await run("--rm", "workspace")).toMatchObject({ stdout: "from the image\n", exitCode: 0 })
  expect(await run("--rm", "workspace", "me", "--json")).toMatchObject({
    stdout: "from me --json\n",
    exitCode: 0,
  })
  expect(await names()).toBe("")
  const kept = await run("--name", "kept", "workspace")
  expect(kept).toMatchObject({ stdout: "from the image\n", exitCode: 0 })
  expect(await names()).toBe("kept")
})

test("the exit code passes through, and a program that cannot be run is told as exec tells it", async () => {
  Object.assign(daemon.host.imageConfig ?? {}, { entrypoint: [], cmd: ["exit", "7"] })
  expect((await run("--rm", "workspace")).exitCode).toBe(7)
  expect((await run("--rm", "workspace", "no-such-program")).exitCode).toBe(127)
  Object.assign(daemon.host.imageConfig ?? {}, { cmd: [] })
  const none = await run("workspace")
  expect(none).toMatchObject({ exitCode: 125 })
  expect(none.stderr).toContain('image "workspace" names no program to run')
  expect((await run("--rm", "no-such-image")).exitCode).toBe(125)
  expect(await names()).toBe("")
})

test("-d leaves the program running as the session main and prints the name", async () => {
  expect(await run("-d", "--name", "web", "workspace")).toMatchObject({ stdout: "web\n", exitCode: 0 })
  expect((await bhatti(["ps", "web"], { daemon })).stdout).toContain("main")
  expect((await bhatti(["inspect", "web"], { daemon })).stdout).toMatch(/^main +echo from the image$/m)
  for (const wrong of [["--rm"], ["-it"], ["-u", "ann"]])
    expect((await run("-d", ...wrong, "workspace")).exitCode).toBe(2)
})

test("create --run takes its words only behind --", async () => {
  const create = (...args: string[]) => bhatti(["create", ...args], { daemon })
  expect((await create("web", "--run", "--memory", "1024", "--", "a", "-b")).exitCode).toBe(0)
  expect((await bhatti(["inspect", "web", "--json"], { daemon })).stdout).toContain(
    '["echo","from","a","-b"]',
  )
  expect((await create("two", "--", "a")).stderr).toContain("a program behind -- needs --run")
  expect((await create("two", "a", "--run")).stderr).toContain('unexpected argument "a"')
})
