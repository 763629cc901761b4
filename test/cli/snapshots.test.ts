/** Snapshots, several sandboxes at once, times of a sandbox's own and events, against a daemon without machines. */

import { afterAll, beforeEach, expect, test } from "bun:test"
import type { Event } from "../../src/contract/event.ts"
import type { Snapshot } from "../../src/contract/snapshot.ts"
import { FakeDaemon, failure } from "./fake-daemon.ts"
import { bhatti } from "./program.ts"

const daemon = new FakeDaemon()
afterAll(() => daemon[Symbol.dispose]())
beforeEach(() => {
  daemon.sandboxes.clear()
  daemon.answers.clear()
  daemon.requests.length = 0
})

const snapshot = {
  id: "snap_0000000000000001",
  user_id: "usr_00000001",
  name: "before",
  status: "ready",
  source_sandbox: "dev",
  source_id: "sb_0000000000000001",
  image: "minimal",
  cpus: 1,
  memory_mb: 512,
  disk_size_mb: 8192,
  has_memory: true,
  size_mb: 40,
  created_at: "2026-01-02T03:04:05.000Z",
} as unknown as Snapshot

/** Remembers the body that was sent. */
function answer(route: string, reply: unknown, status = 200): { body: unknown; url: string } {
  const seen: { body: unknown; url: string } = { body: undefined, url: "" }
  daemon.answers.set(route, async (request) => {
    const text = await request.text()
    seen.body = text === "" ? undefined : JSON.parse(text)
    seen.url = request.url
    return Response.json(reply, { status })
  })
  return seen
}

test("snapshot create sends the name and says how large it became", async () => {
  const seen = answer("POST /sandboxes/dev/checkpoint", snapshot, 201)
  const ran = await bhatti(["snapshot", "create", "dev", "--name", "before"], { daemon })
  expect(ran.stdout).toMatch(/^snapshot\/before created \(40 MB\) in \d+\.\d\d s\n$/)
  expect(seen.body).toEqual({ name: "before" })
  const json = await bhatti(["snapshot", "create", "dev", "-n", "before", "--json"], { daemon })
  expect(JSON.parse(json.stdout)).toEqual(snapshot)
  expect((await bhatti(["snapshot", "create", "dev"], { daemon })).exitCode).toBe(2)
})

test("snapshot list is a table; none is said on standard error", async () => {
  answer("GET /snapshots", [snapshot, { ...snapshot, name: "cold", has_memory: false }])
  const { stdout } = await bhatti(["snapshot", "list"], { daemon })
  expect(stdout.split("\n").map((line) => line.split(/ {2,}/).slice(0, 5))).toEqual([
    ["NAME", "SANDBOX", "STATUS", "MEMORY", "SIZE"],
    ["before", "dev", "ready", "512 MB", "40 MB"],
    ["cold", "dev", "ready", "-", "40 MB"],
    [""],
  ])
  expect((await bhatti(["snapshot", "list", "-q"], { daemon })).stdout).toBe("before\ncold\n")
  answer("GET /snapshots", [])
  const none = await bhatti(["snapshot", "list"], { daemon })
  expect(none).toMatchObject({ stdout: "", exitCode: 0 })
  expect(none.stderr).toContain("bhatti snapshot create")
})

test("snapshot resume sends name and secrets, and says when the memory was lost", async () => {
  const sandbox = daemon.addSandbox("again")
  const seen = answer("POST /snapshots/before/resume", sandbox, 201)
  const args = ["snapshot", "resume", "before", "--name", "again", "--secret", "TOKEN"]
  const ran = await bhatti(args, { daemon })
  expect(ran.stdout).toMatch(/^sandbox\/again resumed \(1 cpu, 512 MB\) in/)
  expect(ran.stderr).toBe("")
  expect(seen.body).toEqual({ name: "again", secrets: ["TOKEN"] })
  expect((await bhatti([...args, "-q"], { daemon })).stdout).toBe("again\n")
  answer("POST /snapshots/before/resume", { ...sandbox, status_reason: "another QEMU" }, 201)
  const booted = await bhatti(["snapshot", "resume", "before"], { daemon })
  expect(booted.stderr).toBe("its memory is lost, it booted from its disk: another QEMU\n")
  expect(booted.exitCode).toBe(0)
})

test("snapshot delete tries all names and fails if one failed", async () => {
  answer("DELETE /snapshots/one", { status: "deleted" })
  daemon.answers.set("DELETE /snapshots/two", () => failure("not_found", 'no snapshot named "two"'))
  answer("DELETE /snapshots/three", { status: "deleted" })
  const ran = await bhatti(["snapshot", "delete", "-y", "one", "two", "three"], { daemon })
  expect(ran).toEqual({
    stdout: "snapshot/one deleted\nsnapshot/three deleted\n",
    stderr: 'bhatti: no snapshot named "two"\n',
    exitCode: 1,
  })
})

test("create --count asks once for all and names each", async () => {
  const made = [daemon.addSandbox("w-1"), daemon.addSandbox("w-2")]
  const seen = answer("POST /sandboxes/batch", made, 201)
  const args = ["create", "--from", "dev", "--name", "w", "--count", "2"]
  const ran = await bhatti(args, { daemon })
  expect(ran.stdout).toBe("sandbox/w-1 created (1 cpu, 512 MB)\nsandbox/w-2 created (1 cpu, 512 MB)\n")
  expect(seen.body).toEqual({ from: "dev", name: "w", count: 2 })
  expect(daemon.requests).toEqual(["POST /sandboxes/batch"])
  expect(JSON.parse((await bhatti([...args, "--json"], { daemon })).stdout)).toEqual(made)
  expect((await bhatti(["create", "--count", "0"], { daemon })).exitCode).toBe(2)
})

test("times of a sandbox's own are seconds, never or the host's", async () => {
  await bhatti(["create", "--name", "dev", "--warm-after", "5m", "--cold-after", "never", "--keep-hot"], {
    daemon,
  })
  expect(daemon.created).toMatchObject({ warm_after: 300, cold_after: 0, keep_hot: true })
  const seen = answer("PATCH /sandboxes/dev", daemon.addSandbox("dev", { warm_after: 90, cold_after: 5400 }))
  const ran = await bhatti(["edit", "dev", "--warm-after", "90", "--cold-after", "default"], { daemon })
  expect(seen.body).toMatchObject({ warm_after: 90, cold_after: null })
  expect(ran.stdout).toContain("warm-after 90 s, cold-after 90 min")
  const wrong = await bhatti(["edit", "dev", "--warm-after", "soon"], { daemon })
  expect(wrong.stderr).toContain("--warm-after takes a time such as 90, 5m, 2h or 1d")
  expect(wrong.exitCode).toBe(2)
})

test("list -o wide and --wide show the same", async () => {
  daemon.addSandbox("dev", { labels: { team: "web" } })
  const { stdout } = await bhatti(["list", "-o", "wide"], { daemon })
  expect(stdout.split("\n")[0]?.split(/ +/)).toEqual(
    "NAME STATUS THERMAL IP CPUS MEMORY DISK IMAGE LABELS AGE ID".split(" "),
  )
  expect((await bhatti(["list", "--wide"], { daemon })).stdout).toBe(stdout)
})

test("edit switches with and without a value", async () => {
  const sandbox = daemon.addSandbox("dev")
  const bodies: unknown[] = []
  daemon.answers.set("PATCH /sandboxes/dev", async (request) => {
    bodies.push(await request.json())
    return Response.json(sandbox)
  })
  for (const args of [["--keep-hot"], ["--keep-hot=false", "--allow-cold"], ["--allow-cold", "off"]])
    expect((await bhatti(["edit", ...args, "dev"], { daemon })).exitCode).toBe(0)
  expect(bodies).toMatchObject([
    { keep_hot: true },
    { keep_hot: false, allow_cold: true },
    { allow_cold: false },
  ])
  expect((await bhatti(["edit", "dev"], { daemon })).stderr).toContain("nothing to change")
})

test("why says what keeps it awake, what it was asked last, and a boot from the disk", async () => {
  answer("GET /sandboxes/dev/why", {
    thermal: "hot",
    held: null,
    reason: "it is kept hot (keep_hot is on)",
    keeps_awake: ["keep_hot is on", "work inside it: it computes"],
    last_touch: { what: "exec", seconds_ago: 200 },
    started_from_disk: "another QEMU",
    failed_starts: { in_a_row: 2, reason: "no memory", rest_seconds: 0 },
    open_streams: 0,
    idle_seconds: 0,
    changes_in_seconds: 1750,
    changes_to: "cold",
  })
  const { stdout } = await bhatti(["why", "dev"], { daemon })
  expect(stdout).toBe(
    [
      "sandbox/dev is hot: it is kept hot (keep_hot is on); cold in 29 min if nothing happens",
      "  kept awake by: keep_hot is on",
      "  kept awake by: work inside it: it computes",
      "  last asked: exec, 3 min ago",
      "  its last start was a boot from its disk: another QEMU",
      "  starts that failed since it last ran: 2, the last one: no memory",
      "",
    ].join("\n"),
  )
})

const event: Event = {
  id: "1",
  ts: "2026-01-02T03:04:05.000Z",
  type: "thermal.wake",
  user_id: "usr_00000001",
  sandbox_id: "sb_0000000000000001",
  sandbox_name: "dev",
  meta: { by: "exec", ms: 12, reason: null, note: "a\u001b[31m b" },
}

test("events are lines, filtered by the daemon, and what others wrote moves no cursor", async () => {
  const seen = answer("GET /events", [event])
  const args = ["events", "--sandbox", "dev", "--type", "thermal.", "--since", "1h", "--limit", "5"]
  const { stdout } = await bhatti(args, { daemon })
  expect(stdout).toBe('2026-01-02T03:04:05.000Z  thermal.wake  dev  by=exec  ms=12  note="a\\x1b[31m b"\n')
  const query = new URL(seen.url).searchParams
  expect(Object.fromEntries(query)).toMatchObject({ sandbox: "dev", type: "thermal.", limit: "5" })
  expect(Date.now() - Date.parse(query.get("since") ?? "")).toBeWithin(3_600_000, 3_660_000)
  expect(JSON.parse((await bhatti(["events", "--json"], { daemon })).stdout)).toEqual([event])
})

test("events --follow prints lines as they come and ends with the stream", async () => {
  daemon.answers.set("GET /events", () => {
    const lines = [`${JSON.stringify(event)}\n`, "\n", JSON.stringify({ ...event, id: "2" }), "\n"]
    return new Response(
      new ReadableStream({
        async pull(controller) {
          const line = lines.shift()
          if (line === undefined) return controller.close()
          controller.enqueue(new TextEncoder().encode(line))
        },
      }),
    )
  })
  const { stdout, exitCode } = await bhatti(["events", "-f", "--json"], { daemon })
  expect(
    stdout
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as Event).id),
  ).toEqual(["1", "2"])
  expect(exitCode).toBe(0)
})

test("a follower that was cut is told, and fails", async () => {
  const line = {
    type: "error",
    data: "events came faster than they were read",
    code: "unavailable",
    hint: null,
  }
  daemon.answers.set("GET /events", () => new Response(`${JSON.stringify(line)}\n`))
  const { stderr, exitCode } = await bhatti(["events", "--follow"], { daemon })
  expect(stderr).toBe("bhatti: events came faster than they were read\n")
  expect(exitCode).toBe(1)
})
