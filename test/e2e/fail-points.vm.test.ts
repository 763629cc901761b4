/**
 * The daemon dies, or the host refuses, at every single call that an operation makes to its host. After the next start
 * a sandbox is there or not, as it was before or as it was asked to be; nothing is left over, and trying again works.
 * By default the daemon dies after every fourth call, and those halfway between fail for a full disk; with
 * FAIL_POINTS=all every call does all of it: the daemon dies before it and after it, and it fails in two ways.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import type { Snapshot } from "@bhatti/contract/snapshot"
import { callsFile, type FailPoint, failPointFile } from "../support/failing-daemon.ts"
import { untilForked } from "../support/forks.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { type Reply, Requests, tapsOf } from "../support/requests.ts"

const runsAll = process.env["FAIL_POINTS"] === "all"
const kinds: FailPoint["how"][] = runsAll
  ? ["kill before", "kill after", "ENOSPC", "EIO"]
  : ["kill after", "ENOSPC"]
const stride = runsAll ? 1 : 4
const offsetOf = (how: FailPoint["how"]) => (runsAll ? 0 : kinds.indexOf(how) * (stride / kinds.length))

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

/** An operation, the state that it starts from, and the states it may lead to. `name` is its sandbox. */
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

const keep = (name: string) =>
  requests.send("POST", `/sandboxes/${name}/checkpoint`, { name: `${name}-kept` })
const kept = async (name: string) => {
  await marked(name)
  expect((await keep(name)).status).toBe(201)
}
const resume = (name: string, as: string) =>
  requests.send("POST", `/snapshots/${name}-kept/resume`, { name: as })
const forget = (snapshot: string) => requests.send("DELETE", `/snapshots/${snapshot}`)
const snapshots = async () => (await requests.send("GET", "/snapshots")).body as Snapshot[]
/** A named snapshot is there whole, for as often as one likes, or not at all. */
const isKeptOrAbsent = async (name: string) => {
  const [snapshot] = await snapshots()
  if (!snapshot) return
  expect(snapshot.status).toBe("ready")
  expect((await resume(name, `${name}-again`)).status).toBe(201)
  await isWhole(`${name}-again`, name)
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
  snapshot: {
    before: marked,
    run: keep,
    after: async (name) => {
      await isWhole(name)
      await isKeptOrAbsent(name)
    },
  },
  resume: {
    before: kept,
    run: (name) => resume(name, `${name}-copy`),
    after: async (name) => {
      await isWhole(name)
      await isAbsentOr(`${name}-copy`, () => isWhole(`${name}-copy`, name))
      expect(await snapshots()).toHaveLength(1)
      await isKeptOrAbsent(name)
    },
  },
  "delete of a snapshot": {
    before: kept,
    run: (name) => forget(`${name}-kept`),
    after: async (name) => {
      await isWhole(name)
      // A snapshot whose deletion began cannot be used, and can be deleted again.
      for (const { status } of await snapshots()) {
        if (status === "ready") await isKeptOrAbsent(name)
        expect((await forget(`${name}-kept`)).status).toBe(200)
      }
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
  for (const { name } of await snapshots()) expect((await forget(name)).status).toBe(200)
}

/** Beyond what is listed. */
async function leftovers(): Promise<string[]> {
  const ids = (await snapshots()).map(({ id }) => id as string)
  const directories = readdirSync(join(own.dataDir, "snapshots")).filter((id) => !ids.includes(id))
  return [...(await requests.leftovers()), ...directories.map((id) => `snapshot ${id}`)]
}

type Call = NonNullable<FailPoint["call"]>
const knownCalls = new Map<Operation, Call[]>()

/** The calls that the operation makes when nothing fails. */
async function callsOf(operation: Operation): Promise<Call[]> {
  const known = knownCalls.get(operation)
  if (known) return known
  // A daemon that has just started loads its default template too, in the background, and heats its zygote: the first
  // run waits for that.
  for (const isCounted of [false, true]) {
    await operation.before("dry")
    await untilForked(own)
    if (isCounted) await arm({ how: "EIO" })
    expect((await operation.run("dry")).status).toBeLessThan(300)
    if (!isCounted) await removeAll()
  }
  disarm()
  const calls = readFileSync(join(own.dataDir, callsFile), "utf8").trim().split("\n")
  await removeAll()
  const found = calls.map((name, index) => ({
    name,
    nth: calls.slice(0, index).filter((one) => one === name).length,
  }))
  knownCalls.set(operation, found)
  return found
}

async function failAt(operation: Operation, point: FailPoint, what: string): Promise<void> {
  const name = `s${rounds++}`
  await operation.before(name)
  const ids = (await requests.list()).map(({ id }) => id)
  await untilForked(own)
  await arm(point)
  const { status } = await operation.run(name)
  if (point.how.startsWith("kill")) {
    expect([what, status]).toEqual([what, 0])
    await until("the daemon is dead", () => !isAlive())
  } else {
    // A failed clean-up after the answer is no failure of the operation.
    expect([what, status > 0 && isAlive()]).toEqual([what, true])
  }
  disarm()
  if (!isAlive()) await own.startDaemon()
  await operation.after(name)
  ids.push(...(await requests.list()).map(({ id }) => id))
  // Files that the host would not remove are removed a little later.
  await until(`${what}: nothing is left`, async () => (await leftovers()).length === 0)

  // Trying again works, whatever was left.
  if (operation !== operations["wake"] && operation !== operations["stop"]) await removeAll()
  if ((await requests.list()).length === 0) await operation.before(name)
  expect([what, (await operation.run(name)).status < 300]).toEqual([what, true])
  await removeAll()
  await until(`${what}: nothing is left in the end`, async () => (await leftovers()).length === 0)
  expect([what, tapsOf(ids)]).toEqual([what, []])
}

describe.each(Object.entries(operations))("%s", (title, operation) => {
  test.each(kinds)(
    "%s: at every call the sandbox ends up whole or absent, and nothing is left",
    async (how) => {
      const calls = await callsOf(operation)
      expect(calls.length).toBeGreaterThan(0)
      for (const call of calls.filter((_, index) => index % stride === offsetOf(how)))
        await failAt(operation, { call, how }, `${title}, ${how} ${call.name}`)
      expect(existsSync(join(own.dataDir, failPointFile))).toBe(false)
    },
    1_200_000,
  )
})
