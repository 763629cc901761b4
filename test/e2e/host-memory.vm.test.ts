/** Real machines on a host whose memory ends, which is to say: of which the daemon is told to keep nearly all free. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { availableMemoryMib } from "../../src/lib/available-memory.ts"
import { type Installation, install, until } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install({ pool: 0, config: "warm_after: 1\n" })
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 120_000)

/** On a host where others work too, free memory changes; the tests hold all the same. */
const availableMib = () => availableMemoryMib({ groups: "own" })
const createsMax = 60

async function keepFree(mib: number): Promise<void> {
  await own.stopDaemon("SIGTERM")
  const path = join(own.dataDir, "config.yaml")
  const others = readFileSync(path, "utf8").replace(/^memory_reserve_mb: .*\n/m, "")
  writeFileSync(path, `${others}memory_reserve_mb: ${mib}\n`)
  await own.startDaemon()
}

const exec = (name: string, ...command: string[]) => own.bhatti(["exec", name, "--", ...command])

test("creates go on until one is refused, which says what to do, and every sandbox made before lives", async () => {
  expect((await own.bhatti(["create", "--name", "idle"])).exitCode).toBe(0)
  expect((await exec("idle", "sh", "-c", "echo kept >/dev/shm/marker")).exitCode).toBe(0)
  const names: string[] = []
  let refusal = ""
  while (refusal === "" && names.length < createsMax) {
    // There is memory for eight, and more if others have made room meanwhile.
    if (names.length % 12 === 0) await keepFree(availableMib() - 300)
    const name = `one-${names.length}`
    const { exitCode, stderr } = await own.bhatti(["create", "--name", name, "--keep-hot"])
    if (exitCode === 0) names.push(name)
    else refusal = stderr
  }
  expect(refusal).toMatch(
    /^bhatti: the host is short of memory: 36 MB are needed at once, and of \d+ MB available \d+ MB are kept free\n {2}stop or destroy a sandbox.*memory_reserve_mb/,
  )
  const answers = await Promise.all(names.map((name) => exec(name, "echo", name)))
  expect(answers.map(({ stdout }) => stdout.trim())).toEqual(names)
  for (const name of names) expect((await own.bhatti(["destroy", "-y", name])).exitCode).toBe(0)
}, 300_000)

test("an idle one was written to disk to make room; it wakes when there is memory, and says why not before", async () => {
  await until("it is on disk", async () => (await own.bhatti(["list"])).stdout.includes("cold"))
  const { stdout } = await own.bhatti(["events", "--type", "thermal.snapshot"])
  expect(stdout).toContain('reason="the host is short of memory"')
  await keepFree(10_000_000)
  const refused = await exec("idle", "true")
  expect([refused.exitCode, refused.stderr]).toEqual([
    125,
    expect.stringContaining("the host is short of memory"),
  ])
  expect((await own.bhatti(["why", "idle"])).stdout).toContain("starts that failed since it last ran: 1")
  await keepFree(0)
  expect((await exec("idle", "cat", "/dev/shm/marker")).stdout).toBe("kept\n")
}, 300_000)
