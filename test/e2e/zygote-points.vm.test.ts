/**
 * The daemon, the zygote, or both are killed after every single step of making a zygote, and of forking a machine from
 * it: each call to the host, each request to the zygote and each answer to its child. Sandboxes that run go on, the
 * next create works at once, another zygote serves, and nothing is left. By default some of the steps; with
 * FAIL_POINTS=all each of them in each way.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { callsFile, type FailPoint, failPointFile } from "../support/failing-daemon.ts"
import { processesOfZygotes } from "../support/holdings.ts"
import { type Installation, install, until } from "../support/installation.ts"
import { Requests } from "../support/requests.ts"

const isRoot = process.getuid?.() === 0
const runsAll = process.env["FAIL_POINTS"] === "all"
const kinds = ["kill after", "kill zygotes after", "kill both after"] as const
/** By default a step or two of each are tried for each kind, and others for each. */
const strides = runsAll ? { fork: 1, zygote: 1 } : { fork: 9, zygote: 18 }
const token = "of-the-test-alone"

type Call = NonNullable<FailPoint["call"]>

let own: Installation
let requests: Requests
let rounds = 0
beforeAll(async () => {
  if (!isRoot) return
  const daemon = resolve(import.meta.dir, "../support/failing-daemon.ts")
  const config = `warm_after: 0\nlog_level: warn\nforks: auto\nmetrics_token: ${token}\n`
  own = await install({ serve: [process.execPath, daemon], config })
  requests = new Requests(own)
  expect(await create("cloned")).toBe("template")
  await createAndDestroy("asks-again")
  await zygoteServes()
  expect(await create("kept")).toBe("fork")
  for (const name of ["cloned", "kept"]) await requests.output(name, `echo ${name} > /dev/shm/nonce`)
}, 600_000)
afterAll(async () => {
  await own?.[Symbol.asyncDispose]()
}, 120_000)

async function create(name: string): Promise<string | undefined> {
  const { status, body } = await requests.create(name)
  expect([name, status, status === 201 ? "" : body]).toEqual([name, 201, ""])
  const events = await requests.send("GET", `/events?sandbox=${name}&type=sandbox.created`)
  return (events.body as { meta: { from: string } }[]).at(-1)?.meta.from
}

async function createAndDestroy(name: string): Promise<void> {
  await create(name)
  expect((await requests.destroy(name)).status).toBe(200)
}

/** A daemon makes a zygote for a template that is used twice; the caller's create is the second one. */
async function startAgain(): Promise<void> {
  await own.startDaemon()
  await createAndDestroy(`asks-${rounds++}`)
}

const zygoteServes = () =>
  until(
    "a zygote serves",
    async () => {
      const headers = { authorization: `Bearer ${token}` }
      const text = await (await fetch(`${own.url}/metrics`, { headers })).text()
      return text.includes("\nbhatti_zygotes_ready 1\n")
    },
    { deadlineMs: 120_000 },
  )

function arm(point: FailPoint): void {
  rmSync(join(own.dataDir, callsFile), { force: true })
  writeFileSync(join(own.dataDir, failPointFile), JSON.stringify(point))
}
const disarm = () => rmSync(join(own.dataDir, failPointFile), { force: true })

const callsSoFar = () => {
  const path = join(own.dataDir, callsFile)
  return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : []
}
const numbered = (calls: string[]): Call[] =>
  calls.map((name, index) => ({ name, nth: calls.slice(0, index).filter((one) => one === name).length }))
const isReached = ({ name, nth }: Call) => callsSoFar().filter((one) => one === name).length > nth
const isDead = () => own.daemonExitCode() !== null

/** Ends the zygote, and has the daemon notice: it makes the next one a second later. */
async function giveUpZygote(): Promise<void> {
  for (const pid of processesOfZygotes(own)) process.kill(pid, "SIGKILL")
  const name = `notices-${rounds++}`
  expect(await create(name)).toBe("template")
  await requests.destroy(name)
}

/** In the long form: a daemon that has seen many zygotes fail makes the next one after a long rest. */
async function forgetFailures(): Promise<void> {
  if (!runsAll) return
  await own.stopDaemon("SIGTERM")
  await startAgain()
  await createAndDestroy(`renews-${rounds++}`)
  await zygoteServes()
}

/** Whatever was killed. */
async function isAsBefore(what: string): Promise<void> {
  disarm()
  if (isDead()) await startAgain()
  const next = `next-${rounds++}`
  await create(next)
  expect([what, await requests.output(next, "hostname")]).toEqual([what, `${next}\n`])
  expect((await requests.destroy(next)).status).toBe(200)
  for (const name of ["cloned", "kept"])
    expect([what, await requests.output(name, "hostname; cat /dev/shm/nonce")]).toEqual([
      what,
      `${name}\n${name}\n`,
    ])
  await zygoteServes()
  await until(`${what}: nothing is left`, async () => {
    const zygotes = readdirSync(join(own.dataDir, "zygotes"))
    return (
      (await requests.leftovers()).length === 0 &&
      zygotes.length === 1 &&
      processesOfZygotes(own).length === 1
    )
  })
  expect((await requests.list()).map(({ name }) => name).toSorted()).toEqual(["cloned", "kept"])
}

/** Some of them, others for each kind. */
const chosen = (calls: Call[], stride: number, kind: number) =>
  calls.filter((_, index) => index % stride === Math.floor((kind * stride) / kinds.length) % stride)

describe.skipIf(!isRoot)("at every step of making a zygote", () => {
  let steps: Call[] | undefined
  const stepsOf = async () => {
    if (steps) return steps
    await giveUpZygote()
    arm({ how: "EIO" })
    await zygoteServes()
    disarm()
    // A zygote is asked again while its threads still work.
    steps = numbered(callsSoFar()).filter(({ name, nth }) => !(name === "ask a zygote: stop" && nth > 0))
    return steps
  }

  test.each(kinds)(
    "%s: sandboxes run on, the next is made at once, another zygote serves, and nothing is left",
    async (how) => {
      const all = await stepsOf()
      expect(all.map(({ name }) => name)).toContain("tell a child: run")
      for (const call of chosen(all, strides.zygote, kinds.indexOf(how))) {
        const what = `${how} ${call.name} ${call.nth}`
        await forgetFailures()
        await giveUpZygote()
        arm({ call, how })
        await until(what, () => (how === "kill zygotes after" ? isReached(call) : isDead()))
        await isAsBefore(what)
      }
    },
    3_600_000,
  )
})

describe.skipIf(!isRoot)("at every step of a fork", () => {
  let steps: Call[] | undefined
  const stepsOf = async () => {
    if (steps) return steps
    arm({ how: "EIO" })
    expect(await create("dry")).toBe("fork")
    disarm()
    steps = numbered(callsSoFar())
    await requests.destroy("dry")
    return steps
  }

  test.each(kinds)(
    "%s: the sandbox is whole or gone, others run on, and nothing is left",
    async (how) => {
      const all = await stepsOf()
      expect(all.map(({ name }) => name)).toContain("tell a child: granted")
      for (const call of chosen(all, strides.fork, kinds.indexOf(how))) {
        const what = `${how} ${call.name} ${call.nth}`
        const name = `forked-${rounds++}`
        await forgetFailures()
        arm({ call, how })
        const { status } = await requests.create(name)
        disarm()
        expect([what, status]).toEqual([what, how === "kill zygotes after" ? 201 : 0])
        if (how !== "kill zygotes after") {
          await until(`${what}: the daemon is dead`, isDead)
          await startAgain()
        }
        if (await requests.show(name)) {
          expect([what, await requests.output(name, "hostname")]).toEqual([what, `${name}\n`])
          await requests.destroy(name)
        }
        await isAsBefore(what)
      }
    },
    3_600_000,
  )
})
