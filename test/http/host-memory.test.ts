/** A host that runs short of memory, through the HTTP interface on a fake host that has as much as a test says. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { systemClock } from "../../src/core/clock.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
let nowMs = 0
beforeEach(async () => {
  nowMs = systemClock.nowMs()
  own = await openHttpApp({ clock: { ...systemClock, nowMs: () => nowMs } })
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const reserveMib = 512
const create = (name: string) => own.call("POST", "/sandboxes", { name })
const available = (mib: number) => {
  own.host.availableMemoryMibNow = mib
}
/** Time passes, and nobody asks for anything, until they are so. */
async function becomes(expected: string[]): Promise<void> {
  await until(`they are ${expected}`, async () => {
    nowMs += 31_000
    await own.core.thermal.tick(nowMs)
    const { body } = await own.call("GET", "/sandboxes")
    const seen = (body as { name: string; thermal: string }[]).map(
      ({ name, thermal }) => `${name} ${thermal}`,
    )
    return seen.sort().join() === expected.join()
  })
}
const refusal = (neededMib: number, freeMib: number) => ({
  code: "unavailable",
  message: `the host is short of memory: ${neededMib} MB are needed at once, and of ${freeMib} MB available 512 MB are kept free`,
  hint: expect.stringContaining("memory_reserve_mb"),
  retryable: true,
})

test("a create that does not fit is refused with what is free, needed and to be done, and leaves nothing", async () => {
  available(reserveMib + 35)
  const refused = await create("more")
  expect([refused.status, refused.body]).toMatchObject([503, refusal(36, 547)])
  expect(refused.headers.get("retry-after")).toBe("10")
  expect([own.host.running.size, own.host.directories.size]).toEqual([1, 1])
  available(reserveMib + 36)
  expect((await create("more")).status).toBe(201)
})

test("a template of another size is not booted where it does not fit", async () => {
  available(reserveMib + 36 + 2083)
  const large = () => own.call("POST", "/sandboxes", { name: "large", memory_mb: 2048 })
  expect((await large()).body).toMatchObject(refusal(2084, 2595))
  expect((await own.call("GET", "/sandboxes/large")).status).toBe(404)
  available(reserveMib + 36 + 2084)
  expect((await large()).status).toBe(201)
})

test("creates at the same time do not all take the same memory", async () => {
  const gate = Promise.withResolvers<void>()
  const { start } = own.host.machines
  let clones = 0
  own.host.machines.start = async (...given) => {
    clones++
    await gate.promise
    return start(...given)
  }
  available(reserveMib + 3 * 36)
  const going = Array.from({ length: 5 }, (_, number) => create(`one-${number}`))
  await until("three are on their way", () => clones === 3)
  expect((await create("late")).body).toMatchObject(refusal(36, 512))
  gate.resolve()
  expect((await Promise.all(going)).map(({ status }) => status).sort()).toEqual([201, 201, 201, 503, 503])
  // The host itself says how much they have taken by now.
  expect((await create("later")).status).toBe(201)
})

test("a wake that does not fit is refused and keeps its memory; one of a paused sandbox needs none", async () => {
  const exec = () => own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })
  await own.call("POST", "/sandboxes/dev/stop")
  available(reserveMib + 55)
  expect((await exec()).body).toMatchObject(refusal(56, 567))
  expect(own.host.memories.size).toBe(1)
  expect((await own.call("GET", "/events?type=sandbox.start_failed")).body).toMatchObject([
    { meta: { reason: expect.stringContaining("short of memory"), failures: 1 } },
  ])
  available(reserveMib + 56)
  expect((await exec()).status).toBe(200)

  await becomes(["dev warm"])
  available(0)
  expect((await exec()).status).toBe(200)
})

test("a boot, a copy and a snapshot's sandbox are refused where they do not fit, and leave nothing", async () => {
  await own.call("POST", "/sandboxes/dev/checkpoint", { name: "snap" })
  available(reserveMib + 55)
  for (const [path, body] of [
    ["/sandboxes", { name: "copy", from: "dev" }],
    ["/snapshots/snap/resume", { name: "copy" }],
  ] as const)
    expect((await own.call("POST", path, body)).body).toMatchObject(refusal(56, 567))
  expect([own.host.running.size, own.host.directories.size, own.host.drafts.size]).toEqual([1, 1, 0])

  await own.call("POST", "/sandboxes/dev/stop")
  own.host.memories.clear()
  available(reserveMib + 181)
  expect((await own.call("POST", "/sandboxes/dev/start")).body).toMatchObject(refusal(182, 693))
  available(reserveMib + 182)
  expect((await own.call("POST", "/sandboxes/dev/start")).status).toBe(200)
})

test("before anything is refused idle sandboxes are written to disk, those that may", async () => {
  await own.call("POST", "/sandboxes", { name: "stays" })
  await own.call("PATCH", "/sandboxes/stays", { allow_cold: false })
  await becomes(["dev warm", "stays warm"])
  available(2 * reserveMib - 1)
  await becomes(["dev cold", "stays warm"])
  expect((await own.call("GET", "/events?type=thermal.snapshot")).body).toMatchObject([
    { sandbox_name: "dev", meta: { by: "daemon", reason: "the host is short of memory" } },
  ])
})

test("a clone with a program that runs counts with the memory that it takes when it goes on", async () => {
  own.host.imagePrograms = { start: "database", ready: "true" }
  expect((await create("db")).status).toBe(201)
  available(reserveMib + 101)
  expect((await create("db-2")).body).toMatchObject({ code: "unavailable", error: refusal(102, 613).message })
  available(reserveMib + 102)
  expect((await create("db-2")).status).toBe(201)
})
