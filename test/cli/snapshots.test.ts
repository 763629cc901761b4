/**
 * Snapshots, several sandboxes at once, times of a sandbox's own and events, against the real application on a fake
 * host.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Event } from "@bhatti/contract/event"
import { limits } from "@bhatti/contract/limits"
import { systemClock } from "../../src/core/clock.ts"
import { Daemon } from "./daemon.ts"
import { bhatti, environment, program, until } from "./program.ts"

let daemon: Daemon
let later = 0
beforeEach(async () => {
  later = 0
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + later }
  daemon = await Daemon.start({ clock })
})
afterEach(() => daemon[Symbol.asyncDispose]())

const made = async (path: string) => (await daemon.call("GET", path)).body

test("snapshot create sends the name and says how large it became", async () => {
  await daemon.sandbox("dev")
  const ran = await bhatti(["snapshot", "create", "dev", "--name", "before"], { daemon })
  expect(ran.stdout).toMatch(/^snapshot\/before created \(1 MB\) in \d+\.\d\d s\n$/)
  expect(daemon.bodies("POST /sandboxes/dev/checkpoint")).toEqual([{ name: "before" }])
  const json = await bhatti(["snapshot", "create", "dev", "-n", "more", "--json"], { daemon })
  expect(JSON.parse(json.stdout)).toEqual(await made("/snapshots/more"))
  expect((await bhatti(["snapshot", "create", "dev"], { daemon })).exitCode).toBe(2)
})

test("snapshot list is a table; none is said on standard error", async () => {
  await daemon.sandbox("dev")
  await daemon.call("POST", "/sandboxes/dev/checkpoint", { name: "before" })
  await daemon.call("POST", "/sandboxes/dev/stop")
  daemon.host.memories.clear()
  await daemon.call("POST", "/sandboxes/dev/checkpoint", { name: "cold" })
  const { stdout } = await bhatti(["snapshot", "list"], { daemon })
  expect(stdout.split("\n").map((line) => line.split(/ {2,}/).slice(0, 5))).toEqual([
    ["NAME", "SANDBOX", "STATUS", "MEMORY", "SIZE"],
    ["before", "dev", "ready", "512 MB", "1 MB"],
    ["cold", "dev", "ready", "-", "1 MB"],
    [""],
  ])
  expect((await bhatti(["snapshot", "list", "-q"], { daemon })).stdout).toBe("before\ncold\n")
  for (const name of ["before", "cold"]) await daemon.call("DELETE", `/snapshots/${name}`)
  const none = await bhatti(["snapshot", "list"], { daemon })
  expect(none).toMatchObject({ stdout: "", exitCode: 0 })
  expect(none.stderr).toContain("bhatti snapshot create")
})

test("snapshot resume sends name and secrets, and says when the memory was lost", async () => {
  await daemon.sandbox("dev")
  await daemon.call("POST", "/secrets", { name: "TOKEN", value: "x" })
  await daemon.call("POST", "/sandboxes/dev/checkpoint", { name: "before" })
  const args = ["snapshot", "resume", "before", "--name", "again", "--secret", "TOKEN"]
  const ran = await bhatti(args, { daemon })
  expect(ran.stdout).toMatch(/^sandbox\/again resumed \(1 cpu, 512 MB\) in/)
  expect(ran.stderr).toBe("")
  expect(daemon.bodies("POST /snapshots/before/resume")).toEqual([{ name: "again", secrets: ["TOKEN"] }])
  await daemon.call("DELETE", "/sandboxes/again")
  expect((await bhatti([...args, "-q"], { daemon })).stdout).toBe("again\n")
  daemon.host.misfit = "another QEMU"
  const booted = await bhatti(["snapshot", "resume", "before"], { daemon })
  expect(booted.stderr).toBe("its memory is lost, it booted from its disk: another QEMU\n")
  expect(booted.exitCode).toBe(0)
})

test("snapshot delete tries all names and fails if one failed", async () => {
  await daemon.sandbox("dev")
  for (const name of ["one", "three"]) await daemon.call("POST", "/sandboxes/dev/checkpoint", { name })
  const ran = await bhatti(["snapshot", "delete", "-y", "one", "two", "three"], { daemon })
  expect(ran).toEqual({
    stdout: "snapshot/one deleted\nsnapshot/three deleted\n",
    stderr: 'bhatti: no snapshot named "two"\n  try: bhatti snapshot list\n',
    exitCode: 1,
  })
})

test("create --count asks once for all and names each", async () => {
  await daemon.sandbox("dev")
  const args = ["create", "--from", "dev", "--name", "w", "--count", "2"]
  const ran = await bhatti(args, { daemon })
  expect(ran.stdout).toBe("sandbox/w-1 created (1 cpu, 512 MB)\nsandbox/w-2 created (1 cpu, 512 MB)\n")
  expect(daemon.bodies("POST /sandboxes/batch")).toEqual([{ from: "dev", name: "w", count: 2 }])
  expect(daemon.requests).toEqual(["POST /sandboxes/batch"])
  for (const name of ["w-1", "w-2"]) await daemon.call("DELETE", `/sandboxes/${name}`)
  const json = JSON.parse((await bhatti([...args, "--json"], { daemon })).stdout)
  expect(json).toEqual([await made("/sandboxes/w-1"), await made("/sandboxes/w-2")])
  expect((await bhatti(["create", "--count", "0"], { daemon })).exitCode).toBe(2)
})

test("times of a sandbox's own are seconds, never or the host's", async () => {
  await bhatti(["create", "--name", "dev", "--warm-after", "5m", "--cold-after", "never", "--keep-hot"], {
    daemon,
  })
  expect(daemon.bodies("POST /sandboxes")).toMatchObject([{ warm_after: 300, cold_after: 0, keep_hot: true }])
  for (const cold of ["default", "90m"]) {
    const ran = await bhatti(["edit", "dev", "--warm-after", "90", "--cold-after", cold], { daemon })
    expect(ran.stdout).toContain(`warm-after 90 s, cold-after ${cold === "90m" ? "90 min" : "default"}`)
  }
  expect(daemon.bodies("PATCH /sandboxes/dev")).toMatchObject([
    { warm_after: 90, cold_after: null },
    { warm_after: 90, cold_after: 5400 },
  ])
  const wrong = await bhatti(["edit", "dev", "--warm-after", "soon"], { daemon })
  expect(wrong.stderr).toContain("--warm-after takes a time such as 90, 5m, 2h or 1d")
  expect(wrong.exitCode).toBe(2)
})

test("a time to live is given and changed, and list, inspect and why tell when it ends", async () => {
  await bhatti(["create", "dev", "--ttl", "2h", "--on-ttl", "destroy"], { daemon })
  expect(daemon.bodies("POST /sandboxes")).toMatchObject([{ ttl: 7200, on_ttl: "destroy" }])
  expect((await bhatti(["list"], { daemon })).stdout).toMatch(/ENDS\n.* destroy in \d+ (min|h)\n/)
  const shown = (await bhatti(["inspect", "dev"], { daemon })).stdout
  expect(shown).toMatch(/^ttl +2 h\non ttl +destroy\nends +\d{4}-/m)
  expect((await bhatti(["why", "dev"], { daemon })).stdout).toMatch(
    /its time to live ends in \d+ (min|h): it is destroyed then; for more: bhatti edit dev --ttl 2h/,
  )
  const edited = await bhatti(["edit", "dev", "--ttl", "never", "--on-ttl", "keep"], { daemon })
  expect(edited).toMatchObject({ exitCode: 0 })
  expect(daemon.bodies("PATCH /sandboxes/dev")).toMatchObject([{ ttl: 0, on_ttl: "keep" }])
  expect((await bhatti(["list"], { daemon })).stdout).not.toContain("ENDS")
  const wrong = await bhatti(["edit", "dev", "--ttl", "soon"], { daemon })
  expect(wrong.stderr).toContain("--ttl takes a time such as 90, 5m, 2h or 1d or never")
})

test("create and edit set a description, and inspect shows it", async () => {
  const shown = async () => (await bhatti(["inspect", "dev"], { daemon })).stdout
  expect((await bhatti(["create", "dev", "--description", "for reviews"], { daemon })).exitCode).toBe(0)
  expect(await shown()).toMatch(/^description +for reviews$/m)
  const described = await bhatti(["edit", "dev", "--description", "for tests"], { daemon })
  expect(described.stdout).toContain(", description for tests, ")
  expect(await shown()).toMatch(/^description +for tests$/m)
  expect((await bhatti(["edit", "dev", "--description", ""], { daemon })).exitCode).toBe(0)
  expect(await shown()).not.toContain("description")
})

test("list -o wide and --wide show the same", async () => {
  await daemon.sandbox("dev", { labels: { team: "web" } })
  const { stdout } = await bhatti(["list", "-o", "wide"], { daemon })
  expect(stdout.split("\n")[0]?.split(/ +/)).toEqual(
    "NAME STATUS THERMAL IP CPUS MEMORY DISK IMAGE LABELS AGE ID".split(" "),
  )
  expect((await bhatti(["list", "--wide"], { daemon })).stdout).toBe(stdout)
})

test("edit switches with and without a value", async () => {
  await daemon.sandbox("dev")
  for (const args of [["--keep-hot"], ["--keep-hot=false", "--allow-cold"], ["--allow-cold", "off"]])
    expect((await bhatti(["edit", ...args, "dev"], { daemon })).exitCode).toBe(0)
  expect(daemon.bodies("PATCH /sandboxes/dev")).toMatchObject([
    { keep_hot: true },
    { keep_hot: false, allow_cold: true },
    { allow_cold: false },
  ])
  expect((await bhatti(["edit", "dev"], { daemon })).stderr).toContain("nothing to change")
})

test("why says what keeps it awake, what it was asked last, and a boot from the disk", async () => {
  await daemon.sandbox("dev")
  await daemon.call("POST", "/sandboxes/dev/stop")
  daemon.host.failAt = "restore"
  for (let attempt = 0; attempt < 2; attempt++) await daemon.call("POST", "/sandboxes/dev/start")
  const why = async () => (await bhatti(["why", "dev"], { daemon })).stdout
  expect(await why()).toBe(
    [
      "sandbox/dev is cold: it was stopped; its memory is on disk and the next request restores it",
      "  last used: start, 0 s ago",
      '  starts that failed since it last ran: 2, the last one: sandbox "dev" could not be started',
      "",
    ].join("\n"),
  )
  daemon.host.failAt = undefined
  daemon.host.misfit = "another QEMU"
  await daemon.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
  later = 10_000
  expect(await why()).toBe(
    [
      "sandbox/dev is hot: something works inside it; warm in 30 s if nothing happens",
      "  kept awake by: work inside it: its start",
      "  last used: exec, 10 s ago",
      "  its last start was a boot from its disk: another QEMU",
      "",
    ].join("\n"),
  )
  await daemon.call("PATCH", "/sandboxes/dev", { keep_hot: true })
  later = 200_000
  expect(await why()).toBe(
    [
      "sandbox/dev is hot: it is set to be kept hot",
      "  kept awake by: it is set to be kept hot",
      "  last used: edit, 3 min ago",
      "  its last start was a boot from its disk: another QEMU",
      "",
    ].join("\n"),
  )
})

test("events are lines, filtered by the daemon, and what others wrote moves no cursor", async () => {
  const { id, name } = await daemon.sandbox("dev")
  const record = { userId: await userId(), sandbox: { id, name } }
  daemon.core.events.record({
    ...record,
    type: "thermal.wake",
    meta: { by: "exec", ms: 12, reason: null, note: "a\u001b[31m b" },
  })
  const args = ["events", "--sandbox", "dev", "--type", "thermal.", "--since", "1h", "--limit", "5"]
  const { stdout } = await bhatti(args, { daemon })
  expect(stdout).toMatch(/^\S+Z {2}thermal.wake {2}dev {2}by=exec {2}ms=12 {2}note="a\\x1b\[31m b"\n$/)
  const [query = {}] = daemon.queries("GET /events")
  expect(query).toMatchObject({ sandbox: "dev", type: "thermal.", limit: "5" })
  expect(Date.now() - Date.parse(query["since"] ?? "")).toBeWithin(3_600_000, 3_660_000)
  const json = JSON.parse((await bhatti(["events", "--json"], { daemon })).stdout)
  expect(json).toEqual(await made("/events"))
  expect(json.map(({ type }: Event) => type)).toEqual(["user.created", "sandbox.created", "thermal.wake"])
})

const userId = async () => (await daemon.core.store.users.findByKey(daemon.key))?.id ?? ""

test("events --follow prints lines as they come and ends with the stream", async () => {
  await daemon.sandbox("dev")
  const child = Bun.spawn([...program, "events", "-f", "--json"], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
  })
  let text = ""
  const reading = (async () => {
    for await (const bytes of child.stdout) text += new TextDecoder().decode(bytes)
  })()
  const types = () =>
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => (JSON.parse(line) as Event).type)
  await until("the stored ones", () => types().includes("sandbox.created"))
  await daemon.call("POST", "/sandboxes/dev/stop")
  await until("the next one", () => types().includes("sandbox.stopped"))
  daemon.core.events.close()
  expect(await child.exited).toBe(0)
  await reading
})

test("a follower that was cut is told, and fails", async () => {
  const child = Bun.spawn([...program, "events", "--follow"], {
    env: environment(daemon),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  await child.stdout.getReader().read()
  const owner = await userId()
  for (let index = 0; index <= limits.eventBacklogMax; index++)
    daemon.core.events.record({ type: "secret.set", userId: owner, meta: { by: "user" } })
  expect(await child.stderr.text()).toBe(
    "bhatti: events arrived faster than the client read them\n  follow again with the time of the last event as since\n",
  )
  expect(await child.exited).toBe(1)
})
