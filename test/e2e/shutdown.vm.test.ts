/**
 * Stopping and updating the daemon with real machines running: they run on, or are all written to disk if it is set so.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { appendFileSync } from "node:fs"
import { join } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"
import { buildOtherVersion } from "../support/other-version.ts"

const names = ["one", "two", "three"]
let own: Installation
beforeAll(async () => {
  own = await install()
  for (const name of names) await ok("create", "--name", name)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

async function ok(...args: string[]): Promise<string> {
  const ran = await own.bhatti(args)
  expect([args[0], ran.exitCode, ran.exitCode === 0 ? "" : ran.stderr]).toEqual([args[0], 0, ""])
  return ran.stdout
}
const exec = (name: string, command: string) => ok("exec", name, "--", "sh", "-c", command)

test("another version of the program takes over what runs: memory, processes, sessions; and can stop and wake it", async () => {
  const other = await buildOtherVersion("9.9.9-other")
  try {
    await exec("one", `echo across > /dev/shm/nonce; ${startCountingScript}`)
    const before = own.machines().toSorted()
    const count = Number(await exec("one", readCountScript))
    await own.stopDaemon("SIGTERM")
    expect(own.machines().toSorted()).toEqual(before)
    await own.startDaemon({ binary: other.binary })
    expect(JSON.parse(await ok("version", "--daemon", "--json"))).toMatchObject({ version: "9.9.9-other" })
    expect(own.machines().toSorted()).toEqual(before)
    expect(await exec("one", "cat /dev/shm/nonce")).toBe("across\n")
    expect(Number(await exec("one", readCountScript))).toBeGreaterThan(count)
    await ok("stop", "one")
    expect(await exec("one", "cat /dev/shm/nonce")).toBe("across\n")
    await ok("snapshot", "create", "one", "--name", "of-other")
  } finally {
    await own.stopDaemon("SIGTERM")
    await own.startDaemon()
    other.remove()
  }
  await ok("snapshot", "resume", "of-other", "--name", "copy")
  expect(await exec("copy", "cat /dev/shm/nonce")).toBe("across\n")
  await ok("destroy", "-y", "copy")
  await ok("snapshot", "delete", "of-other")
}, 240_000)

test("with on_stop: snapshot all are on disk when the daemon has ended, and go on where they were", async () => {
  await own.stopDaemon("SIGTERM")
  appendFileSync(join(own.dataDir, "config.yaml"), "on_stop: snapshot\n")
  await own.startDaemon()
  for (const name of names) await exec(name, `echo ${name} > /dev/shm/name`)
  expect(own.machines()).toHaveLength(3)
  await own.stopDaemon("SIGTERM")
  expect(own.machines()).toEqual([])
  await own.startDaemon()
  for (const name of names) {
    expect(JSON.parse(await ok("inspect", name, "--json"))).toMatchObject({ thermal: "cold" })
    expect(await exec(name, "cat /dev/shm/name")).toBe(`${name}\n`)
  }
}, 120_000)

test("a second signal ends the daemon at once, and what was not saved yet is as it was", async () => {
  for (const name of names)
    await exec(name, "head -c 60000000 /dev/urandom > /dev/shm/big; echo again > /dev/shm/name")
  const stopping = own.stopDaemon("SIGTERM")
  await until("it saves", () => own.daemonLog().includes('"on_stop":"snapshot"'))
  const hastened = own.stopDaemon("SIGTERM")
  await Promise.all([stopping, hastened])
  await own.startDaemon()
  for (const name of names) expect(await exec(name, "cat /dev/shm/name")).toBe("again\n")
}, 120_000)
