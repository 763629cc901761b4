/**
 * The ways in which a command can end: each with its right reason in the answer, and in the events when the sandbox is
 * gone. The data directory is a file system of its own, so that the host's disk can be full.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { rmSync, statfsSync } from "node:fs"
import { join } from "node:path"
import type { Event } from "@bhatti/contract/event"
import type { Why } from "@bhatti/contract/sandbox"
import { type Installation, install, until } from "../support/installation.ts"

const names = [
  "life",
  "memory",
  "full",
  "killed",
  "panic",
  "off",
  "gone",
  "stopped",
  "daemon",
  "wake",
] as const
type Name = (typeof names)[number]

let own: Installation
beforeAll(async () => {
  own = await install({ diskMib: 3500, pool: 0, config: "warm_after: 0\n" })
  const made = names.map((name) => own.bhatti(["create", "--name", name]))
  for (const { exitCode, stderr } of await Promise.all(made))
    expect([exitCode, stderr]).toEqual([0, expect.any(String)])
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 120_000)

type Line = { type: string } & Record<string, unknown>

/** Starts a command and returns when it has said something; `last` is the last line of its stream. */
async function begin(name: Name, script: string): Promise<{ last: Promise<Line> }> {
  const response = await fetch(`${own.url}/sandboxes/${name}/exec`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${own.key}`,
      accept: "application/x-ndjson",
      "content-type": "application/json",
    },
    body: JSON.stringify({ cmd: ["sh", "-c", `echo up; ${script}`] }),
  })
  const lines: Line[] = []
  const read = (async () => {
    let rest = ""
    for await (const bytes of response.body ?? []) {
      const parts = `${rest}${Buffer.from(bytes)}`.split("\n")
      rest = parts.pop() ?? ""
      lines.push(...parts.map((line) => JSON.parse(line)))
    }
  })()
  await until("it runs", () => lines.length > 0)
  return { last: read.then(() => lines.at(-1) as Line) }
}

const sleep = "exec sleep 1000"
const run = async (name: Name, script: string, flags: string[] = []) => {
  const { stdout, stderr } = await own.bhatti(["exec", "--json", ...flags, name, "--", "sh", "-c", script])
  return JSON.parse(stdout || stderr)
}

async function eventsOf(name: Name): Promise<Event[]> {
  return JSON.parse((await own.bhatti(["events", "--sandbox", name, "--json"])).stdout)
}

/** The causes of events that have one. */
const told = (events: Event[]) =>
  events.flatMap(({ type, meta }) => (meta["cause"] === undefined ? [] : [`${type} ${meta["cause"]}`])).sort()

test("ends of a command in a sandbox that goes on", async () => {
  expect(await run("life", "exit 3")).toMatchObject({
    exit_code: 3,
    reason: "exited",
    by: null,
    detail: null,
  })
  expect(await run("life", "kill -9 $$")).toMatchObject({ signal: "KILL", reason: "signal", by: "guest" })
  expect(await run("life", sleep, ["--timeout", "1"])).toMatchObject({
    ...{ timed_out: true, reason: "time_limit", by: "agent", signal: "KILL" },
  })
  const interrupted = own.start(["exec", "life", "--", "sh", "-c", `echo up; ${sleep}`])
  await interrupted.stdout.getReader().read()
  interrupted.kill("SIGINT")
  expect(await interrupted.exited).toBe(130)
  expect(await run("life", "true", ["--user", "nobody-such"])).toMatchObject({ reason: "no_user" })
  expect(await run("life", "true", ["--cwd", "/nowhere"])).toMatchObject({ reason: "no_directory" })
}, 120_000)

test("memory: the command itself, and a child of one that goes on", async () => {
  const greedy = "dd if=/dev/zero of=/dev/null bs=440M count=1"
  const killed = await own.bhatti(["exec", "memory", "--", ...greedy.split(" ")])
  expect(killed.exitCode).toBe(137)
  expect(killed.stderr).toMatch(
    /^bhatti: the command was killed: the sandbox ran out of memory: dd had \d{3} MiB of \d{3}; for more: bhatti create --memory 1024\n$/,
  )
  const { exit_code, reason, detail } = await run("memory", `${greedy}; exit 5`)
  expect([exit_code, reason]).toEqual([5, "exited"])
  expect(detail.memory_kills).toEqual([
    { ...detail.memory_kills[0], name: "dd", in_cgroup: false, memory_mb: expect.any(Number) },
  ])
  expect(detail.memory_kills[0].memory_mb).toBeGreaterThan(300)
}, 120_000)

test("the sandbox's disk is full: the end is the program's own, and the answer says what it lacked", async () => {
  const free = "$(df --output=avail -BM / | tail -1 | tr -dc 0-9)"
  const fill = `fallocate -l $((${free} - 8))M /workspace/f; dd if=/dev/zero of=/workspace/g bs=64k count=1000`
  const ended = await run("full", `${fill} 2>/dev/null || exit 1`)
  expect(ended).toMatchObject({ exit_code: 1, reason: "exited", detail: { disk_full: "space" } })
}, 60_000)

/** The machine of each ends under its command. */
const deaths: [Name, string, () => Promise<unknown>][] = [
  ["killed", "machine_killed", async () => process.kill(await machineOf("killed"), "SIGKILL")],
  ["panic", "guest_panic", () => trigger("panic", "c")],
  ["off", "guest_poweroff", () => trigger("off", "o")],
  ["gone", "destroyed", () => own.bhatti(["destroy", "-y", "gone"])],
  ["stopped", "stopped", () => own.bhatti(["stop", "stopped"])],
]
const trigger = (name: Name, key: string) =>
  begin(name, `sync; echo ${key} | sudo tee /proc/sysrq-trigger; ${sleep}`)

/** Finds the machine by the sandbox's directory, in which it has its disk open. */
async function machineOf(name: Name): Promise<number> {
  const { id } = JSON.parse((await own.bhatti(["inspect", name, "--json"])).stdout)
  const { stdout } = Bun.spawnSync([
    "sh",
    "-c",
    `ls -l /proc/[0-9]*/fd/* 2>/dev/null | grep '/${id}/disk.qcow2'`,
  ])
  const pids = [...stdout.toString().matchAll(/\/proc\/(\d+)\/fd/g)].map(([, pid]) => Number(pid))
  const found = own.machines().find((pid) => pids.includes(pid))
  if (found === undefined) throw new Error(`${name} has no machine`)
  return found
}

test.each(deaths)(
  "%s: the last line of the stream says %s",
  async (name, reason, end) => {
    const { last } = await begin(name, sleep)
    await end()
    expect(await last).toMatchObject({
      ...{ type: "error", code: "unavailable", reason },
      subject: {
        kind: "ended_sandbox",
        sandbox: name,
        ...(/^(stop|destr)/.test(reason) && { by: "tester" }),
      },
    })
  },
  60_000,
)

test("a wake that fails, the host's disk that is full, and the daemon that stops", async () => {
  expect((await own.bhatti(["stop", "wake"])).exitCode).toBe(0)
  const { id } = JSON.parse((await own.bhatti(["inspect", "wake", "--json"])).stdout)
  rmSync(join(own.dataDir, "sandboxes", id, "disk.qcow2"))
  expect(await run("wake", "true")).toMatchObject({ code: "unavailable", reason: "wake_failed" })

  const { last } = await begin("daemon", sleep)
  await own.stopDaemon("SIGTERM")
  expect(await last).toMatchObject({ type: "error", reason: "daemon_stopped" })
  await own.startDaemon()

  const { bavail, bsize } = statfsSync(own.dataDir)
  const ballast = join(own.dataDir, "ballast")
  const leftMib = Math.floor((bavail * bsize) / 1024 / 1024) - 700
  expect(Bun.spawnSync(["fallocate", "-l", `${leftMib}M`, ballast]).exitCode).toBe(0)
  await begin("daemon", `head -c 300M /dev/urandom >/workspace/big; ${sleep}`)
  const show = async () => JSON.parse((await own.bhatti(["inspect", "daemon", "--json"])).stdout)
  await until("it is held", async () => (await show()).held !== null)
  expect(await run("daemon", "true")).toMatchObject({ code: "unavailable", reason: "host_disk_full" })
  rmSync(ballast)
}, 120_000)

test("afterwards, when the sandboxes are gone, the events and why have it all", async () => {
  for (const name of names) await own.bhatti(["destroy", "-y", name])
  const causes = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, told(await eventsOf(name))] as const)),
  )
  // The guest may have told a daemon that was leaving.
  causes["daemon"] = causes["daemon"]?.filter((cause) => cause !== "process.ended disconnected") ?? []
  expect(causes).toEqual({
    life: ["process.ended signal", "process.ended signal", "process.ended time_limit"],
    memory: [
      "process.ended out_of_memory",
      "process.out_of_memory out_of_memory",
      "process.out_of_memory out_of_memory",
    ],
    full: [],
    killed: ["exec.failed machine_killed", "sandbox.ended machine_killed"],
    panic: ["exec.failed guest_panic", "exec.failed guest_panic", "sandbox.ended guest_panic"],
    off: ["exec.failed guest_poweroff", "exec.failed guest_poweroff", "sandbox.ended guest_poweroff"],
    gone: ["exec.failed destroyed"],
    stopped: ["exec.failed stopped"],
    wake: ["sandbox.start_failed wake_failed"],
    daemon: ["exec.failed daemon_stopped", "exec.failed destroyed", "sandbox.held host_disk_full"],
  })
  const life = (await eventsOf("life")).filter(({ type }) => type === "process.ended")
  expect(life.map(({ meta }) => meta["by"])).toEqual(["guest", "agent", "client"])
  const why = JSON.parse((await own.bhatti(["why", "killed", "--json"])).stdout) as Why
  expect(why.reason).toBe("it was destroyed by tester")
  expect(why.ends.map(({ type }) => type)).toEqual(["exec.failed", "sandbox.ended", "sandbox.destroyed"])
}, 60_000)
