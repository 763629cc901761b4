/** A destroyed sandbox leaves no trace on the host, however many there were, with a pool and without. */

import { afterEach, expect, test } from "bun:test"
import { holdingsOf } from "../support/holdings.ts"
import { type Installation, install, until } from "../support/installation.ts"

const cycles = Number(process.env["BHATTI_TEST_CYCLES"] ?? 8)
const lanes = 4

let own: Installation
afterEach(() => own[Symbol.asyncDispose](), 60_000)

async function cycle(name: string): Promise<void> {
  const policy = ["--egress", "deny", "--allow-host", `${name}.example.com`]
  const made = await own.bhatti(["create", "--name", name, ...policy])
  expect([made.exitCode, made.exitCode === 0 ? "" : made.stderr]).toEqual([0, ""])
  expect((await own.bhatti(["destroy", "-y", name])).exitCode).toBe(0)
}

/** With no sandbox: nothing but the pool is there, and it rests. */
async function isQuiet(pool: number): Promise<boolean> {
  const { machines, processesOfMachines, taps, directories, nameServers, nameServerFiles, zombies } =
    holdingsOf(own)
  // An ended machine stays a process until the host's first process has reaped it.
  const ofMachines = [machines, processesOfMachines, taps, directories].every((count) => count === pool)
  return ofMachines && nameServers + nameServerFiles + zombies === 0
}

test.each([0, 2])(
  `${cycles} sandboxes came and went, and all is as before: with a pool of %d`,
  async (pool) => {
    // A template that is forked has no pool.
    own = await install(pool === 0 ? { isForked: true } : { pool, config: "forks: off\n" })
    // The first one makes what stays for good, and fills a pool.
    for (let number = 0; number < lanes; number++) await cycle(`first${number}`)
    await until("it is quiet before", () => isQuiet(pool), { deadlineMs: 120_000 })
    const { descriptors, ...before } = holdingsOf(own)
    expect(before).toMatchObject({ taps: pool, machines: pool, processesOfMachines: pool, bridges: 1 })

    await Promise.all(
      Array.from({ length: lanes }, async (_, lane) => {
        for (let number = lane; number < cycles; number += lanes) await cycle(`s${number}`)
      }),
    )
    await until("it is quiet after", () => isQuiet(pool), { deadlineMs: 120_000 })
    const { descriptors: _, ...after } = holdingsOf(own)
    expect(after).toEqual(before)
    // Connections that the API's clients have just left may still be closing.
    await until("the daemon's descriptors are as before", () => holdingsOf(own).descriptors <= descriptors)
  },
  3_600_000,
)
