/** Which slot a new sandbox gets, and with it the user id of its machine. */

import { afterEach, expect, test } from "bun:test"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

let own: HttpApp
afterEach(() => own[Symbol.asyncDispose]())

test("no new sandbox, copy or pooled one gets a slot whose user id a process of the host has", async () => {
  own = await openHttpApp()
  const { core, host } = own
  const make = async (body: object) => {
    const { status, body: made } = await own.call("POST", "/sandboxes", body)
    expect(status).toBe(201)
    return (await core.store.sandboxes.get((made as { id: never }).id))?.slot
  }
  expect(await make({ name: "first" })).toBe(1)
  host.slotsInUseNow = [1, 2, 4, 5]
  expect(await make({ name: "second" })).toBe(3)
  expect(await make({ name: "copy", from: "first" })).toBe(6)
  expect((await core.store.sandboxes.addPooled(host.machines)).slot).toBe(7)
  host.slotsInUseNow = Array.from({ length: 2000 }, (_, index) => 2001 - index)
  expect(await make({ name: "third" })).toBe(2002)
  host.slotsInUseNow = []
  expect(await make({ name: "fourth" })).toBe(2)
})
