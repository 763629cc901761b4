/** Ends: their reason in the answer, in the events, and in `why` after the sandbox is gone. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { Why } from "@bhatti/contract/sandbox"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  await own.call("POST", "/sandboxes", { name: "dev" })
})
afterEach(() => own[Symbol.asyncDispose]())

const why = async (name: string) => (await own.call("GET", `/sandboxes/${name}/why`)).body as Why

test("why of a destroyed sandbox tells who destroyed it and its last ends, by name and by id", async () => {
  const { id } = (await own.call("GET", "/sandboxes/dev")).body as { id: string }
  await own.call("POST", "/sandboxes/dev/stop")
  await own.call("DELETE", "/sandboxes/dev")
  for (const name of ["dev", id]) {
    const told = await why(name)
    expect(told).toMatchObject({ thermal: null, reason: "it was destroyed by alice" })
    expect(Date.parse(told.destroyed_at ?? "")).not.toBeNaN()
    expect(told.ends.map(({ type }) => type)).toEqual(["sandbox.stopped", "sandbox.destroyed"])
  }
})

test("a new sandbox with the name of a destroyed one is not taken for it", async () => {
  await own.call("DELETE", "/sandboxes/dev")
  await own.call("POST", "/sandboxes", { name: "dev" })
  expect(await why("dev")).toMatchObject({ thermal: "hot", destroyed_at: null, ends: [] })
})

test("why does not tell of another user's sandbox, nor of one that never was", async () => {
  await own.call("DELETE", "/sandboxes/dev")
  const { key } = await own.core.store.users.create({ name: "eve" })
  expect((await own.call("GET", "/sandboxes/dev/why", undefined, key)).status).toBe(404)
  expect((await own.call("GET", "/sandboxes/never/why")).status).toBe(404)
})
