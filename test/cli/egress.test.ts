/** What the command line says about the network, and what of it reaches the daemon. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import { FakeDaemon } from "./fake-daemon.ts"
import { bhatti } from "./program.ts"

const daemon = new FakeDaemon()
afterAll(() => daemon[Symbol.dispose]())
beforeEach(() => {
  daemon.sandboxes.clear()
  daemon.answers.clear()
})

const caged = { default: "deny", allow_hosts: ["*.example.com"], allow_cidrs: ["203.0.113.0/24"] } as const

test("create asks for a policy only when one is given", async () => {
  await bhatti(["create", "--name", "a"], { daemon })
  expect(daemon.created?.net_policy).toBeUndefined()
  await bhatti(["create", "--name", "b", "--egress", "deny"], { daemon })
  expect(daemon.created?.net_policy).toMatchObject({ default: "deny", allow_hosts: [], allow_cidrs: [] })
  const lists = [
    "--allow-host",
    "*.example.com",
    "--allow-host",
    "a.org,b.org",
    "--allow-cidr",
    "203.0.113.0/24",
  ]
  await bhatti(["create", "--name", "c", ...lists], { daemon })
  expect(daemon.created?.net_policy).toEqual({
    allow_hosts: ["*.example.com", "a.org", "b.org"],
    allow_cidrs: ["203.0.113.0/24"],
  })
})

test("edit sends the new policy and says what it is now", async () => {
  daemon.addSandbox("dev")
  let sent: unknown
  daemon.answers.set("PATCH /sandboxes/dev", async (request) => {
    sent = await request.json()
    return Response.json({ ...daemon.sandboxes.get("dev"), net_policy: caged })
  })
  const { stdout } = await bhatti(["edit", "dev", "--egress", "deny", "--allow-host", "*.example.com"], {
    daemon,
  })
  expect(sent).toMatchObject({
    net_policy: { default: "deny", allow_hosts: ["*.example.com"], allow_cidrs: [] },
  })
  expect(stdout).toContain("egress deny, but *.example.com, 203.0.113.0/24")
})

test("inspect and list show address and policy", async () => {
  daemon.addSandbox("dev", {
    ip: "10.209.64.1",
    net_policy: { ...caged, allow_hosts: [...caged.allow_hosts], allow_cidrs: [] },
  })
  const { stdout } = await bhatti(["inspect", "dev"], { daemon })
  expect(stdout).toMatch(/^ip +10\.209\.64\.1$/m)
  expect(stdout).toMatch(/^egress +deny, but \*\.example\.com$/m)
  expect((await bhatti(["list"], { daemon })).stdout).toContain("10.209.64.1")
})

test("what contradicts itself is refused before anything is asked", async () => {
  daemon.requests.length = 0
  for (const args of [
    ["create", "--egress", "open"],
    ["create", "--egress", "public", "--allow-host", "example.com"],
    ["edit", "dev", "--egress", "public", "--allow-cidr", "203.0.113.0/24"],
  ])
    expect((await bhatti(args, { daemon })).exitCode).toBe(2)
  expect(daemon.requests).toEqual([])
})
