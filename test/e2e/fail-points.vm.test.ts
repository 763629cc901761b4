/**
 * The daemon dies, or the host refuses, at every single call that an operation makes to its host. After the next start a
 * sandbox is there or not, as it was before or as it was asked to be; nothing is left over, and trying again works. Every second
 * point by default, with FAIL_POINTS=all every one, before and after the call.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { callsFile, type FailPoint, failPointFile } from "../support/failing-daemon.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { type Reply, Requests, tapsOf } from "../support/requests.ts"

const runsAll = process.env["FAIL_POINTS"] === "all"
const kinds: FailPoint["how"][] = runsAll
  ? ["kill before", "kill after", "ENOSPC", "EIO"]
  : ["kill after", "ENOSPC"]

let own: Installation
let requests: Requests
let rounds = 0

beforeAll(async () => {
  const daemon = resolve(import.meta.dir, "../support/failing-daemon.ts")
  own = await install({ serve: [process.execPath, daemon], config: "warm_after: 0\nlog_level: warn\n" })
  requests = new Requests(own)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

const isAlive = () => own.daemonExitCode() === null

/** What an operation starts from and must lead to. `name` is the sandbox that it is about. */
type Operation = {
  before(name: string): Promise<unknown>
  run(name: string): Promise<Reply>
  /** After a failure: what may be true of the sandbox and what must. */
  after(name: string): Promise<void>
}

const marked = async (name: string) => {
  expect((await requests.create(name)).status).toBe(201)
  await requests.output(name, `echo ${name} > /dev/shm/nonce; echo ${name} > /workspace/file; sync`)
}
const isWhole = async (name: string, of = name) =>
  expect(await requests.output(name, "cat /dev/shm/nonce /workspace/file")).toBe(`${of}\n${of}\n`)
const isAbsentOr = async (name: string, check: () => Promise<unknown>) => {
  if (await requests.show(name)) await check()
}

const operations: Record<string, Operation> = {
  create: {
    before: async () => undefined,
    run: (name) => requests.create(name),
    after: (name) => isAbsentOr(name, () => requests.output(name, "true")),
  },
  stop: { before: marked, run: (name) => requests.stop(name), after: isWhole },
  wake: {
    before: async (name) => {
      await marked(name)
      expect((await requests.stop(name)).status).toBe(200)
    },
    run: (name) => requests.start(name),
    after: async (name) => {
      const kept = await requests.output(name, "cat /dev/shm/nonce /workspace/file || true")
      // An answer that never came from a machine that ran already costs its memory, and is said.
      if (kept !== `${name}\n`) return expect(kept).toBe(`${name}\n${name}\n`)
      expect(own.daemonLog()).toContain((await requests.show(name))?.id ?? "no such sandbox")
    },
  },
  fork: {
    before: marked,
    run: (name) => requests.create(`${name}-copy`, { from: name }),
    after: async (name) => {
      await isWhole(name)
      await isAbsentOr(`${name}-copy`, () => isWhole(`${name}-copy`, name))
    },
  },
  destroy: {
    before: marked,
    run: (name) => requests.destroy(name),
    after: async (name) => {
      if (await requests.show(name)) expect((await requests.destroy(name)).status).toBeLessThan(300)
    },
  },
}

async function arm(point: FailPoint): Promise<void> {
  rmSync(join(own.dataDir, callsFile), { force: true })
  writeFileSync(join(own.dataDir, failPointFile), JSON.stringify(point))
}

function disarm(): void {
  rmSync(join(own.dataDir, failPointFile), { force: true })
}

async function removeAll(): Promise<void> {
  for (const { name } of await requests.list())
    expect((await requests.destroy(name)).status).toBeLessThan(300)
}

/** The calls that the operation makes when nothing fails. */
async function callsOf(operation: Operation): Promise<string[]> {
  await operation.before("dry")
  await arm({ how: "EIO" })
  expect((await operation.run("dry")).status).toBeLessThan(300)
  disarm()
  const calls = readFileSync(join(own.dataDir, callsFile), "utf8").trim().split("\n")
  await removeAll()
  return calls
}

async function failAt(operation: Operation, point: FailPoint, what: string): Promise<void> {
  const name = `s${rounds++}`
  await operation.before(name)
  const ids = (await requests.list()).map(({ id }) => id)
  await arm(point)
  const { status } = await operation.run(name)
  if (point.how.startsWith("kill")) {
    expect([what, status]).toEqual([what, 0])
    await until("the daemon is dead", () => !isAlive())
  } else {
    // What a failed clean-up after the answer costs nobody is no failure of the operation.
    expect([what, status > 0 && isAlive()]).toEqual([what, true])
  }
  disarm()
  if (!isAlive()) await own.startDaemon()
  await operation.after(name)
  ids.push(...(await requests.list()).map(({ id }) => id))
  expect([what, await requests.leftovers()]).toEqual([what, []])

  // Trying again works, whatever was left.
  if (operation !== operations["wake"] && operation !== operations["stop"]) await removeAll()
  if ((await requests.list()).length === 0) await operation.before(name)
  expect([what, (await operation.run(name)).status < 300]).toEqual([what, true])
  await removeAll()
  expect([what, await requests.leftovers(), tapsOf(ids)]).toEqual([what, [], []])
}

describe.each(Object.entries(operations))("%s", (title, operation) => {
  test.each(kinds)(
    "%s: at every call the sandbox ends up whole or absent, and nothing is left",
    async (how) => {
      const calls = await callsOf(operation)
      expect(calls.length).toBeGreaterThan(1)
      for (const [call, name] of calls.entries())
        await failAt(operation, { call, how }, `${title}, ${how} ${name}`)
      expect(existsSync(join(own.dataDir, failPointFile))).toBe(false)
    },
    1_200_000,
  )
})
