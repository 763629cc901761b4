/** `bhatti run` against the real application on a fake host: the program, its exit code, and what stays of it. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
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

test("an image that is not here is pulled first, once; --pull says otherwise", async () => {
  daemon.host.imageConfig = undefined
  const pulls = daemon.host.pulls
  const create = (...args: string[]) => bhatti(["create", ...args], { daemon })
  const ref = "registry.example.com/app:1"
  const none = await create("never", "--image", ref, "--pull", "never")
  expect(none).toMatchObject({ exitCode: 1 })
  expect(none.stderr).toContain(`no image named "${ref}"`)
  expect(pulls.asked).toHaveLength(0)
  const first = await create("web", "--image", ref, "--run", "--", "echo", "hi")
  expect(first).toMatchObject({ exitCode: 0 })
  expect(first.stderr).toContain(`image ${ref} is pulled first`)
  expect((await create("again", "--image", ref)).stderr).not.toContain("pulled")
  expect(await run("--rm", ref, "echo", "hello")).toMatchObject({ stdout: "hello\n", exitCode: 0 })
  expect(pulls.asked).toHaveLength(1)
  expect((await create("newest", "--image", ref, "--pull", "always")).exitCode).toBe(0)
  expect(pulls.asked).toHaveLength(2)
  for (const name of ["one", "two"])
    expect((await create(name, "--image", "registry.example.com/app")).exitCode).toBe(0)
  expect(pulls.asked).toHaveLength(3)
  // A name that is no reference, where no registry is the default one.
  expect((await create("typo", "--image", "workspce")).stderr).toContain('no image named "workspce"')
  for (const { stderr } of [await create("short", "--image", "debian:12"), await run("--rm", "debian:12")]) {
    expect(stderr).toContain('"debian:12" names no registry, and this host has no default one')
    expect(stderr).toContain("set default_registry in config.yaml")
    expect(stderr).toContain(ref)
  }
  pulls.refusal = new AppError("not_found", "the registry has no such image", { reason: "no_manifest" })
  expect((await run("--rm", "registry.example.com/gone:1")).stderr).toContain(
    "the registry has no such image",
  )
})
