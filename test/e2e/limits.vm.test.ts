/**
 * The limits of control groups as a real kernel enforces them. The kernel is a sandbox's own, which offers all
 * controllers whatever this host offers; in it our code makes the groups and our launcher starts greedy programs in
 * QEMU's place.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join, resolve } from "node:path"
import { type Installation, install } from "../support/installation.ts"

const root = resolve(import.meta.dir, "../..")
let own: Installation
let directory: string
beforeAll(async () => {
  directory = mkdtempSync("/tmp/bhatti-limits-")
  own = await install()
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
}, 60_000)

test("a greedy machine gets its memory, threads, processor time and disk bandwidth and no more, and is told apart when it dies of it", async () => {
  const program = join(directory, "greedy")
  const source = join(root, "test/support/greedy.ts")
  const built = Bun.spawnSync([process.execPath, "build", "--compile", source, "--outfile", program])
  expect([built.exitCode, built.stderr.toString()]).toEqual([0, expect.any(String)])

  expect((await own.bhatti(["create", "--name", "host", "--cpus", "2"])).exitCode).toBe(0)
  for (const file of [program, join(root, "dist/jail")])
    expect((await own.bhatti(["cp", file, "host:/var/tmp/"])).exitCode).toBe(0)
  const command = ["sudo", "/var/tmp/greedy", "/var/tmp/jail"]
  const { stdout, stderr } = await own.bhatti(["exec", "host", "--", ...command], { deadlineMs: 280_000 })
  expect([stderr, JSON.parse(stdout || "{}")]).toEqual([
    "",
    {
      lowerPriorityGetsLess: true,
      memory: {
        itWasKilledForMemory: true,
        theKernelsLogSaysSo: true,
        theOtherLives: true,
        theOtherWasKilledForMemory: false,
      },
      threads: 97,
      processor: true,
      bandwidth: { tookAtLeastItsTime: true, wroteAll: true },
      hostMemory: { itWasKilledForMemory: true, itsGroupSaysSo: false },
      left: [],
    },
  ])
}, 600_000)
