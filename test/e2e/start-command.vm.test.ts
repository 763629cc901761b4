/** Programs of a sandbox that run by themselves: a start command that runs already in its clones, and services. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { type Installation, install, until } from "../support/installation.ts"
import { ready, type Said, start } from "../support/noting-server.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function create(name: string, ...options: string[]): Promise<{ ms: number; sandbox: Sandbox }> {
  const made = await own.bhatti(["create", "--name", name, "--json", ...options], { deadlineMs: 300_000 })
  if (made.exitCode !== 0) throw new Error(made.stderr)
  return { ms: made.ms, sandbox: JSON.parse(made.stdout) }
}

const sh = async (sandbox: string, script: string) =>
  (await own.bhatti(["exec", sandbox, "--", "sh", "-c", script])).stdout.trim()

const ask = async (sandbox: string) => JSON.parse(await sh(sandbox, "curl -s localhost:8000/")) as Said

test("clones have the program running, and not one instruction of it ran before they were themselves", async () => {
  const served = ["--start", start, "--ready", ready]
  await create("first", ...served, "--env", "WHO=me")
  const names = Array.from({ length: 3 }, (_, index) => `clone-${index}`)
  await Promise.all(names.map((name) => create(name, ...served)))
  const all = await Promise.all(["first", ...names].map(async (name) => ({ name, ...(await ask(name)) })))
  const distinct = (key: keyof Said) => new Set(all.map((one) => JSON.stringify(one[key]))).size
  // Before the freeze they are one and the same.
  expect([distinct("seed"), distinct("early"), distinct("last")]).toEqual([1, 1, 1])
  // From the first moment in which the program runs again, each has a name and randomness of its own, and the time.
  expect([distinct("fresh"), distinct("first")]).toEqual([4, 4])
  expect(new Set(all.map(({ first }) => first[0]?.[1])).size).toBe(4)
  for (const { name, first } of all) {
    expect(first[0]?.[0]).toBe(name)
    expect(Math.abs((first[0]?.[2] ?? 0) - Date.now() / 1000)).toBeLessThan(60)
  }
  const processes = JSON.parse((await own.bhatti(["ps", "first", "--json"])).stdout)
  expect(processes).toContainEqual(expect.objectContaining({ name: "main", running: true }))
}, 300_000)

test("the hooks have run for each clone before its first command, and a failed one is an event", async () => {
  const machineId = await sh("clone-1", "cat /etc/machine-id")
  const { sandbox } = await create("again", "--start", start, "--ready", ready, "--env", "WHO=you")
  expect(await sh("again", "cat /run/noted")).toBe(
    `again ${await sh("again", "cat /etc/machine-id")} ${sandbox.ip} you`,
  )
  expect(await sh("clone-1", "cat /run/noted")).toStartWith(`clone-1 ${machineId} `)
  // A hook may ask the program, which runs again by then.
  expect(JSON.parse(await sh("again", "cat /run/answered")).first[0][0]).toBe("again")
  const events = JSON.parse((await own.bhatti(["events", "--sandbox", "again", "--json"])).stdout)
  expect(events.filter(({ type }: { type: string }) => type === "sandbox.hook_failed")).toMatchObject([
    { meta: { hook: "20-fail", reason: "it exited with 3" } },
  ])
}, 120_000)

test("the program and the hooks' work survive a stop; a fork runs the hooks as itself; a boot runs the command again", async () => {
  const before = await ask("first")
  await own.bhatti(["stop", "first"])
  expect((await ask("first")).seed).toBe(before.seed)
  await create("fork", "--from", "first")
  expect(await ask("fork")).toMatchObject({ seed: before.seed, early: before.early })
  expect(await sh("fork", "cat /run/noted")).toStartWith("fork ")
  expect((await own.bhatti(["restart", "first"], { deadlineMs: 120_000 })).exitCode).toBe(0)
  await until("it serves again", async () => (await sh("first", "curl -s localhost:8000/")) !== "")
  expect((await ask("first")).seed).not.toBe(before.seed)
}, 180_000)

test("a start command that ends, or does not get ready, fails the create with its last words and leaves nothing", async () => {
  const failed = await own.bhatti([
    ...["create", "--name", "bad", "--start", "echo no space for the logs; exit 4", "--ready", "false"],
  ])
  expect(failed.exitCode).toBe(1)
  expect(failed.stderr).toContain("ended before it was ready: it exited with 4")
  expect(failed.stderr).toContain("no space for the logs")
  expect((await own.bhatti(["inspect", "bad"])).exitCode).toBe(1)
  const dead = await own.bhatti(["create", "--name", "bad", "--start", "no-such-program"])
  expect([dead.exitCode, dead.stderr]).toEqual([
    1,
    expect.stringContaining("ended at once: it exited with 127"),
  ])
}, 120_000)

test("services are started in order, run again when they die, survive a stop, and end in reverse", async () => {
  const noting = (name: string) =>
    `trap 'echo -${name} >> /workspace/told; sync; exit 0' TERM; echo +${name} | tee -a /workspace/told; while :; do sleep 0.1; done`
  await create("app", "--service", `db=${noting("db")}`, "--service", `web=${noting("web")}`)
  const told = async () => (await sh("app", "cat /workspace/told")).split("\n").join(" ")
  const states = async () => {
    const { stdout } = await own.bhatti(["service", "list", "app", "--json"])
    return JSON.parse(stdout) as { name: string; state: string; restarts: number; process_id: string }[]
  }
  // Each starts when the one before runs, so what they do first may happen in any order.
  const started = async () => (await told()).split(" ").sort().join(" ")
  await until("both run", async () => (await started()) === "+db +web")
  const pid = `$(ps -eo pid,args | awk '/[w]orkspace\\/told/ && /-db/ {print $1; exit}')`
  await sh("app", `kill -9 ${pid}`)
  await until("it runs again", async () => (await started()) === "+db +db +web")
  expect(await states()).toMatchObject([
    { name: "db", state: "running", restarts: 1 },
    { name: "web", state: "running", restarts: 0 },
  ])
  expect((await own.bhatti(["ps", "app"])).stdout).toMatch(/^db +running +1 +always +p\d+ +trap/m)
  expect((await own.bhatti(["logs", "app", "web"])).stdout).toContain("+web")

  const before = await states()
  await own.bhatti(["stop", "app"])
  expect(await states()).toEqual(before)
  expect((await own.bhatti(["restart", "app"], { deadlineMs: 120_000 })).exitCode).toBe(0)
  await until("both run again", async () => /\+(db|web) -web -db \+(db|web) \+(db|web)$/.test(await told()))
  expect((await own.bhatti(["service", "stop", "app", "web"])).stdout).toContain("stopped")
  expect(await states()).toMatchObject([{ state: "running" }, { name: "web", state: "stopped" }])
  await until("it has said so", async () => (await told()).endsWith("-web"))
}, 180_000)

test("services are edited while they run; a missing program is told at once; a stop is its user's", async () => {
  const { process_id: db } = JSON.parse((await own.bhatti(["service", "list", "app", "--json"])).stdout)[0]
  const edit = (...options: string[]) => own.bhatti(["edit", "app", ...options])
  expect((await edit("--service", "cron=sleep 1000", "--service-remove", "web")).exitCode).toBe(0)
  const list = async () => JSON.parse((await own.bhatti(["service", "list", "app", "--json"])).stdout)
  const edited = [
    { name: "db", state: "running", process_id: db },
    { name: "cron", state: "running" },
  ]
  expect(await list()).toMatchObject(edited)
  const refused = await edit("--service", "x=nosuch --now", "--service-remove", "db")
  expect([refused.exitCode, refused.stderr]).toEqual([2, expect.stringContaining('no program "nosuch"')])
  expect(await list()).toMatchObject(edited)
  const created = await own.bhatti(["create", "--name", "bad", "--service", "x=nosuch"])
  expect([created.exitCode, created.stderr]).toEqual([2, expect.stringContaining('no program "nosuch"')])

  await own.bhatti(["service", "stop", "app", "cron"])
  await until("why tells whose stop it is", async () => {
    const { stdout } = await own.bhatti(["why", "app"])
    return stdout.includes("sandbox.service_stopped") && stdout.includes("SIGTERM, sent by a request")
  })
}, 120_000)

test("a service that keeps failing is named by why and the events", async () => {
  await create("crash", "--service", "worker=echo no queue; exit 3")
  await until("why names it", async () =>
    (await own.bhatti(["why", "crash"])).stdout.includes(
      "its service worker keeps failing: it exited with 3",
    ),
  )
  const events = JSON.parse((await own.bhatti(["events", "--sandbox", "crash", "--json"])).stdout)
  expect(events.filter(({ type }: { type: string }) => type === "sandbox.service_failing")).toMatchObject([
    { meta: { service: "worker", reason: "it exited with 3" } },
  ])
  expect((await own.bhatti(["logs", "crash", "worker"])).stdout).toContain("no queue")
  const bad = await own.bhatti(["create", "--name", "bad", "--service", "no command"])
  expect([bad.exitCode, bad.stderr]).toEqual([2, expect.stringContaining("NAME=COMMAND")])
}, 120_000)
