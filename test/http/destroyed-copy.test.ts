/**
 * A destroy wins over a copy of a disk that takes for ever, on a fake host: over its source, and over what is made of
 * it.
 */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"
import { until } from "../support/installation.ts"

let own: HttpApp
beforeEach(async () => {
  own = await openHttpApp()
  for (const name of ["dev", "source"]) await own.call("POST", "/sandboxes", { name })
  await own.call("POST", "/sandboxes/source/checkpoint", { name: "kept" })
})
afterEach(() => own[Symbol.asyncDispose]())

/** From now on this call of the host takes until its signal is aborted; gives whether it goes on. */
function hang(step: "copyAhead" | "capture" | "place"): () => boolean {
  let isGoing = false
  own.host.snapshots[step] = async ({ signal }: { signal: AbortSignal }) => {
    isGoing = true
    const { promise, reject } = Promise.withResolvers<never>()
    signal.addEventListener("abort", () => reject(signal.reason))
    return promise
  }
  return () => isGoing
}

/** The same of the memory's copy. */
function hangSaving(): () => boolean {
  let isGoing = false
  own.host.machines.saveSnapshot = async (_machine, options) => {
    isGoing = true
    const { promise, reject } = Promise.withResolvers<never>()
    options?.signal.addEventListener("abort", () => reject(options.signal.reason))
    return promise
  }
  return () => isGoing
}

const fork = (name: string) => own.call("POST", "/sandboxes", { from: "dev", name })
const snapshot = (name: string) => own.call("POST", "/sandboxes/dev/checkpoint", { name })
const resume = (name: string) => own.call("POST", "/snapshots/kept/resume", { name })

const nothingElse = async (names: string[]) => {
  expect((await own.core.store.sandboxes.listOnHost()).map(({ name }) => name).sort()).toEqual(names)
  expect((await own.core.store.snapshots.listOnHost()).map(({ name }) => name)).toEqual(["kept"])
  expect(own.host.directories.size).toBe(names.length)
  expect(own.host.running.size).toBe(names.length)
  expect([...own.host.drafts]).toEqual([])
}
const destroy = async (name: string) =>
  expect((await own.call("DELETE", `/sandboxes/${name}`)).status).toBe(200)

test.each(["copyAhead", "capture"] as const)(
  "over the source of a fork and of a snapshot, in %s",
  async (step) => {
    for (const make of [fork, snapshot]) {
      const isGoing = hang(step)
      const making = make("made")
      await until("it is copied", isGoing)
      await destroy("dev")
      expect((await making).status).toBe(409)
      await nothingElse(["source"])
      await own.call("POST", "/sandboxes", { name: "dev" })
    }
  },
)

test("over the source of a fork and of a snapshot whose disk is gone before it is copied", async () => {
  for (const make of [fork, snapshot]) {
    const { promise: destroyed, resolve } = Promise.withResolvers<void>()
    let isGoing = false
    own.host.snapshots.copyAhead = async () => {
      isGoing = true
      await destroyed
      throw Object.assign(new Error("no such file"), { code: "ENOENT" })
    }
    const making = make("made")
    await until("it is copied", () => isGoing)
    await destroy("dev")
    resolve()
    expect((await making).status).toBe(409)
    await nothingElse(["source"])
    await own.call("POST", "/sandboxes", { name: "dev" })
  }
})

test.each(["copyAhead", "capture", "place"] as const)(
  "over a copy, in %s, and the source goes on",
  async (step) => {
    const isGoing = hang(step)
    const making = fork("copy")
    await until("it is copied", isGoing)
    await destroy("copy")
    expect((await making).status).toBe(409)
    await nothingElse(["dev", "source"])
    expect((await own.call("POST", "/sandboxes/dev/exec", { cmd: ["true"] })).status).toBe(200)
  },
)

test("over a copy, while its source's memory is copied", async () => {
  const isGoing = hangSaving()
  const making = fork("copy")
  await until("it is copied", isGoing)
  await destroy("copy")
  expect((await making).status).toBe(409)
  await nothingElse(["dev", "source"])
})

test("over one of several copies: none is left, and who waits for the source's turn need not get it", async () => {
  const isGoing = hang("capture")
  const first = fork("first")
  await until("it is copied", isGoing)
  const second = own.call("POST", "/sandboxes/batch", { from: "dev", name: "more", count: 3 })
  await until("its names are taken", async () => (await own.call("GET", "/sandboxes/more-3")).status === 200)
  await destroy("more-2")
  expect((await second).status).toBe(409)
  await destroy("first")
  expect((await first).status).toBe(409)
  await nothingElse(["dev", "source"])
  expect((await own.call("POST", "/sandboxes/dev/stop")).status).toBe(200)
})

test("over what is made of a snapshot, and over another that waits for that", async () => {
  const isGoing = hang("place")
  const first = resume("first")
  await until("it is copied", isGoing)
  const second = resume("second")
  await until("its name is taken", async () => (await own.call("GET", "/sandboxes/second")).status === 200)
  await destroy("second")
  expect((await second).status).toBe(409)
  await destroy("first")
  expect((await first).status).toBe(409)
  await nothingElse(["dev", "source"])
  expect((await own.call("DELETE", "/snapshots/kept")).status).toBe(200)
})

test("a guest that does not write out its files keeps no destroy waiting", async () => {
  const isWriting = () => own.host.ongoing.commands > 0
  for (const guest of own.core.guests.values()) {
    const { processes } = guest
    const start = processes.start.bind(processes)
    processes.start = (command) =>
      start(command.argv?.[0] === "/bin/sync" ? { ...command, argv: ["sleep"] } : command)
  }
  const making = fork("copy")
  await until("it writes out its files", isWriting)
  await destroy("copy")
  expect((await making).status).toBe(409)
  await nothingElse(["dev", "source"])
})
