/** Network options of the command line, and the policy that reaches the daemon. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { Daemon } from "./daemon.ts"
import { bhatti } from "./program.ts"

let daemon: Daemon
beforeEach(async () => {
  daemon = await Daemon.start()
})
afterEach(() => daemon[Symbol.asyncDispose]())

const created = () => daemon.bodies("POST /sandboxes").at(-1) as { net_policy?: unknown }

test("create asks for a policy only when one is given", async () => {
  await bhatti(["create", "--name", "a"], { daemon })
  expect(created().net_policy).toBeUndefined()
  await bhatti(["create", "--name", "b", "--egress", "deny"], { daemon })
  expect(created().net_policy).toMatchObject({ default: "deny", allow_hosts: [], allow_cidrs: [] })
  const lists = ["--allow-host", "*.example.com", "--allow-host", "a.org,b.org", "--allow-cidr", "8.8.8.0/24"]
  await bhatti(["create", "--name", "c", ...lists], { daemon })
  expect(created().net_policy).toEqual({
    allow_hosts: ["*.example.com", "a.org", "b.org"],
    allow_cidrs: ["8.8.8.0/24"],
  })
})

test("edit sends the new policy and says what it is now", async () => {
  await daemon.sandbox("dev")
  const allowed = ["--allow-host", "*.example.com", "--allow-cidr", "8.8.8.0/24"]
  const { stdout } = await bhatti(["edit", "dev", "--egress", "deny", ...allowed], { daemon })
  expect(daemon.bodies("PATCH /sandboxes/dev")).toMatchObject([
    { net_policy: { default: "deny", allow_hosts: ["*.example.com"], allow_cidrs: ["8.8.8.0/24"] } },
  ])
  expect(stdout).toContain("egress deny, but *.example.com, 8.8.8.0/24")
})

test("inspect and list show address and policy", async () => {
  await daemon.sandbox("dev", { net_policy: { default: "deny", allow_hosts: ["*.example.com"] } })
  const { stdout } = await bhatti(["inspect", "dev"], { daemon })
  expect(stdout).toMatch(/^ip +10\.0\.0\.1$/m)
  expect(stdout).toMatch(/^egress +deny, but \*\.example\.com$/m)
  expect((await bhatti(["list"], { daemon })).stdout).toContain("10.0.0.1")
})

test("what contradicts itself is refused before anything is asked", async () => {
  for (const args of [
    ["create", "--egress", "open"],
    ["create", "--egress", "public", "--allow-host", "example.com"],
    ["edit", "dev", "--egress", "public", "--allow-cidr", "8.8.8.0/24"],
  ])
    expect((await bhatti(args, { daemon })).exitCode).toBe(2)
  expect(daemon.requests).toEqual([])
})
