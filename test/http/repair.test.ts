/** Repairing a sandbox, through the HTTP interface on a fake host. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const repair = () => own.call("POST", "/sandboxes/dev/repair")
const machines = () => [...own.host.running.keys()]

test("why says that a root takes no more writes, of a sandbox that runs", async () => {
  const why = async () => (await own.call("GET", "/sandboxes/dev/why")).body
  expect(await why()).toMatchObject({ root_read_only: false })
  own.host.isRootReadOnly = true
  expect(await why()).toMatchObject({ root_read_only: true })
  await own.call("POST", "/sandboxes/dev/stop")
  expect(await why()).toMatchObject({ root_read_only: null })
})

test.each([
  [0, "clean"],
  [1, "repaired"],
  [3, "repaired"],
  [4, "damaged"],
  [12, "damaged"],
  [-1, "damaged"],
])("e2fsck's exit code %d means: %s", async (exitCode, result) => {
  own.host.repair = { exitCode, output: "words" }
  const before = machines()
  const { status, body } = await repair()
  expect([status, body]).toMatchObject([
    200,
    {
      result,
      output: "words",
      sandbox: { status: "running", status_reason: "its file system was repaired" },
    },
  ])
  expect(machines().length).toBe(1)
  expect(machines()).not.toEqual(before)
  const events = (await own.call("GET", "/events?type=sandbox.repaired")).body as { meta: object }[]
  expect(events[0]?.meta).toMatchObject({ by: "user", exit_code: exitCode })
})

test("a stopped one is repaired without its memory, and a guest that knows no repair is told so and runs", async () => {
  await own.call("POST", "/sandboxes/dev/stop")
  const { status, body } = await repair()
  expect([status, body]).toMatchObject([
    503,
    { retryable: false, message: expect.stringContaining("too old") },
  ])
  expect(own.host.memories.size).toBe(0)
  expect((await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })).status).toBe(200)
})
