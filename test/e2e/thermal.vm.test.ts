/** Idle sandboxes cool down and any request warms them up again, on real machines, with short times. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ config: "warm_after: 3\ncold_after: 3\n" })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (name: string, ...args: string[]) =>
  (await own.bhatti(["exec", name, "--", ...args])).stdout

async function get<T>(path: string): Promise<T> {
  const response = await fetch(`${own.url}${path}`, { headers: { authorization: `Bearer ${own.key}` } })
  return (await response.json()) as T
}
const thermalOf = async (name: string) => (await get<{ thermal: string }>(`/sandboxes/${name}`)).thermal
const why = (name: string) =>
  get<{ reason: string; changes_to: string | null; open_streams: number; keeps_awake: string[] }>(
    `/sandboxes/${name}/why`,
  )

test("an idle sandbox is paused, then written to disk, and each time the next request finds it as it was", async () => {
  await own.bhatti(["create", "--name", "idle"])
  await exec("idle", "sh", "-c", "echo kept > /dev/shm/kept")
  // Due so late that it does not count.
  await exec("idle", "sh", "-c", "sleep 90000 >/dev/null 2>&1 &")
  await until("it is warm", async () => (await thermalOf("idle")) === "warm", { deadlineMs: 60_000 })
  expect((await why("idle")).changes_to).toBe("cold")
  expect(await exec("idle", "cat", "/dev/shm/kept")).toBe("kept\n")
  expect(await thermalOf("idle")).toBe("hot")
  expect(Math.abs(Number(await exec("idle", "date", "+%s")) - Date.now() / 1000)).toBeLessThan(10)

  await until("it is cold", async () => (await thermalOf("idle")) === "cold", { deadlineMs: 60_000 })
  expect(own.machines()).toHaveLength(0)
  expect(await exec("idle", "cat", "/dev/shm/kept")).toBe("kept\n")
  await own.bhatti(["destroy", "idle"])
}, 180_000)

test("a connected client keeps it hot, and so does work inside that nobody watches", async () => {
  await own.bhatti(["create", "--name", "busy"])
  const child = own.start(["exec", "-i", "busy", "--", "cat"])
  await until("the stream is open", async () => (await why("busy")).open_streams === 1)
  const deadline = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("busy")).toBe("hot")
    return Date.now() > deadline
  })
  child.stdin.end()
  await child.exited

  await exec("busy", "sh", "-c", "(while :; do :; done) >/dev/null 2>&1 & echo started")
  const later = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("busy")).toBe("hot")
    return Date.now() > later
  })
  expect((await why("busy")).reason).toContain("works inside")
  await own.bhatti(["destroy", "busy"])
}, 180_000)

test("what is kept hot is never paused", async () => {
  await own.bhatti(["create", "--name", "kept"])
  const answer = await fetch(`${own.url}/sandboxes/kept`, {
    method: "PATCH",
    headers: { authorization: `Bearer ${own.key}` },
    body: JSON.stringify({ keep_hot: true }),
  })
  expect(await answer.json()).toMatchObject({ keep_hot: true })
  const deadline = Date.now() + 9000
  await until("it stays hot all the time", async () => {
    expect(await thermalOf("kept")).toBe("hot")
    return Date.now() > deadline
  })
  await own.bhatti(["destroy", "kept"])
}, 120_000)

/** Writes the time each five seconds, by sleep and by a read that times out, as event loops do. */
const pacers = `cd /workspace; mkfifo never
(while sleep 5; do date +%s >> slept; done) >/dev/null 2>&1 &
(while :; do read -t 5 x <> never; date +%s >> polled; done) >/dev/null 2>&1 &`

test("programs that wait for timers keep their pace however idle the sandbox is, also when the daemon is killed", async () => {
  await own.bhatti(["create", "--name", "pace"])
  await exec("pace", "bash", "-c", pacers)
  const stays = async (ms: number) => {
    const end = Date.now() + ms
    await until("it stays hot all the time", async () => {
      expect(await thermalOf("pace")).toBe("hot")
      return Date.now() > end
    })
  }
  await stays(10_000)
  await until("why says it", async () =>
    (await why("pace")).keeps_awake.some((words) => /^a timer inside it: due in [0-5] s$/.test(words)),
  )
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  await stays(10_000)
  for (const file of ["slept", "polled"]) {
    const stamps = (await exec("pace", "cat", file)).trim().split("\n").map(Number)
    expect(stamps.length).toBeGreaterThanOrEqual(4)
    const gaps = stamps.slice(1).map((stamp, index) => stamp - (stamps[index] ?? 0))
    expect(Math.max(...gaps)).toBeLessThanOrEqual(7)
  }
  await exec("pace", "pkill", "bash")
  await until("it is warm", async () => (await thermalOf("pace")) === "warm", { deadlineMs: 60_000 })
  await own.bhatti(["destroy", "pace"])
}, 180_000)
