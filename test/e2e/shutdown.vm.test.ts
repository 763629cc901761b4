/** Stopping and updating the daemon with real machines running: they run on, or are all written to disk if it is set so. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { appendFileSync, cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { join, resolve } from "node:path"
import { type Installation, install, until } from "../support/installation.ts"
import { readCountScript, startCountingScript } from "../support/markers.ts"

const root = resolve(import.meta.dir, "../..")
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

/** The same sources under another version number. */
async function buildOther(version: string): Promise<{ binary: string; remove(): void }> {
  const directory = mkdtempSync("/tmp/bhatti-other-")
  for (const name of ["src", "images", "dist/lohar", "dist/jail"]) {
    cpSync(join(root, name), join(directory, name), { recursive: true })
  }
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
  const about = await Bun.file(join(root, "package.json")).json()
  await Bun.write(join(directory, "package.json"), JSON.stringify({ ...about, version }))
  const binary = join(directory, "bhatti")
  const built = Bun.spawnSync([process.execPath, "build", "--compile", "src/main.ts", "--outfile", binary], {
    cwd: directory,
  })
  if (built.exitCode !== 0) throw new Error(built.stderr.toString())
  return { binary, remove: () => rmSync(directory, { recursive: true }) }
}

test("another version of the program takes over what runs: memory, processes, sessions; and can stop and wake it", async () => {
  const other = await buildOther("9.9.9-other")
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
