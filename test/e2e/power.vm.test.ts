/** Stopping, waking and losing machines, on real ones: what is in memory, on disk and running must be as it was. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const exec = async (...args: string[]) => (await own.bhatti(["exec", "dev", "--", ...args])).stdout
const post = (path: string) =>
  fetch(`${own.url}${path}`, { method: "POST", headers: { authorization: `Bearer ${own.key}` } })

async function stop(): Promise<void> {
  const answer = await post("/sandboxes/dev/stop")
  expect(await answer.json()).toMatchObject({ status: "stopped", thermal: "cold" })
}

test("three times stopped and woken: memory, a running process and a file are as they were", async () => {
  const counter = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done"
  const pid = (await exec("sh", "-c", `(${counter}) >/dev/null 2>&1 & echo $!`)).trim()
  await exec("sh", "-c", "echo in-memory > /dev/shm/nonce; echo on-disk > /workspace/file")
  for (let round = 0; round < 3; round++) {
    const before = Number(await exec("cat", "/dev/shm/count"))
    await stop()
    expect(own.machines()).toHaveLength(0)
    expect(await exec("cat", "/dev/shm/nonce", "/workspace/file")).toBe("in-memory\non-disk\n")
    await until("the process counts on", async () => Number(await exec("cat", "/dev/shm/count")) > before)
    expect(await exec("sh", "-c", `kill -0 ${pid} && echo alive`)).toBe("alive\n")
    expect(Math.abs(Number(await exec("date", "+%s")) - Date.now() / 1000)).toBeLessThan(10)
  }
}, 180_000)

test("a wake gives other random numbers than the wake before it", async () => {
  const draws: string[] = []
  for (let round = 0; round < 2; round++) {
    await stop()
    draws.push(await exec("sh", "-c", "head -c 16 /dev/urandom | od -An -tx1"))
  }
  expect(draws[0]).not.toBe(draws[1])
}, 120_000)

test("a large working set comes back unchanged", async () => {
  await exec(
    "sh",
    "-c",
    "head -c 64000000 /dev/urandom > /dev/shm/big; sha256sum /dev/shm/big > /dev/shm/sum",
  )
  await stop()
  expect(await exec("sh", "-c", "sha256sum -c /dev/shm/sum")).toBe("/dev/shm/big: OK\n")
  await exec("rm", "/dev/shm/big")
}, 120_000)

test("twenty times stopped and woken leave no descriptor, directory or machine behind", async () => {
  const descriptors = () => readdirSync(`/proc/${own.daemonPid()}/fd`).length
  await stop()
  await exec("true")
  const before = descriptors()
  for (let round = 0; round < 20; round++) {
    await stop()
    await exec("true")
  }
  expect(descriptors()).toBeLessThanOrEqual(before + 2)
  expect(own.machines()).toHaveLength(1)
  expect(readdirSync(join(own.dataDir, "sandboxes"))).toHaveLength(1)
}, 300_000)

test("a sandbox that switches itself off boots from its disk at the next request", async () => {
  await exec("sh", "-c", "echo kept > /workspace/after; sync")
  await own.bhatti(["exec", "dev", "--", "sudo", "sh", "-c", "echo o > /proc/sysrq-trigger"], {
    deadlineMs: 20_000,
  })
  await until("its machine has ended", () => own.machines().length === 0)
  expect(await exec("cat", "/workspace/after")).toBe("kept\n")
  await stop()
  expect(await exec("cat", "/workspace/after")).toBe("kept\n")
}, 120_000)

test("a stopped sandbox outlives the daemon, killed or not", async () => {
  await exec("sh", "-c", "echo still > /dev/shm/still")
  await stop()
  await own.stopDaemon("SIGKILL")
  await own.startDaemon()
  expect(await exec("cat", "/dev/shm/still")).toBe("still\n")
}, 120_000)

test.each(["SIGKILL", "SIGTERM"] as const)(
  "a running sandbox can be stopped and woken by the daemon after one that got %s",
  async (signal) => {
    await exec("sh", "-c", `echo ${signal} > /dev/shm/across`)
    await own.stopDaemon(signal)
    await own.startDaemon()
    await stop()
    expect(await exec("cat", "/dev/shm/across")).toBe(`${signal}\n`)
  },
  120_000,
)

test("a damaged snapshot is not used: the sandbox boots from its disk", async () => {
  await exec("sh", "-c", "echo disk > /workspace/damaged; sync")
  await stop()
  const [id = ""] = readdirSync(join(own.dataDir, "sandboxes"))
  const memory = join(own.dataDir, "sandboxes", id, "snapshot", "memory")
  const bytes = readFileSync(memory)
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 0xff, bytes.length - 1)
  await Bun.write(memory, bytes)
  expect(await exec("sh", "-c", "cat /workspace/damaged; ls /dev/shm")).toBe("disk\n")
}, 120_000)
