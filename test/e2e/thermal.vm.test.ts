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
  get<{ reason: string; changes_to: string | null; open_streams: number }>(`/sandboxes/${name}/why`)

test("an idle sandbox is paused, then written to disk, and each time the next request finds it as it was", async () => {
  await own.bhatti(["create", "--name", "idle"])
  await exec("idle", "sh", "-c", "echo kept > /dev/shm/kept")
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
