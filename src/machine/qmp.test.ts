/**
 * A monitor whose QEMU has been taken over: whatever it says, whoever waits gets an AppError in time, and nothing
 * collects.
 */

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { Socket } from "bun"
import { Qmp } from "./qmp.ts"

const deadlineMs = 500
const greeting = `{"QMP": {"version": {}, "capabilities": []}}\n`

let directory: string
let stop: () => void
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-qmp-")
  stop = () => undefined
})
afterEach(() => {
  stop()
  rmSync(directory, { recursive: true, force: true })
})

/** Answers what opening asks, and then says only what the test lets it say. */
async function openMonitor(first = greeting) {
  const socketPath = join(directory, "qmp.sock")
  const gone = Promise.withResolvers<void>()
  let peer: Socket | undefined
  const listener = Bun.listen({
    unix: socketPath,
    socket: {
      open(socket) {
        peer = socket
        socket.write(first)
      },
      data(socket, bytes) {
        const { execute, id } = JSON.parse(bytes.toString()) as { execute: string; id: string }
        if (execute === "qmp_capabilities") socket.write(`${JSON.stringify({ return: {}, id })}\n`)
      },
      close: () => gone.resolve(),
      error() {},
    },
  })
  stop = () => listener.stop(true)
  const qmp = await Qmp.open({ socketPath, deadlineMs })
  if (!peer) throw new Error("nobody connected")
  return { qmp, peer, gone: gone.promise }
}

async function failureOf(promise: Promise<unknown>): Promise<AppError> {
  const thrown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(thrown).toBeInstanceOf(AppError)
  return thrown as AppError
}

test("an answer reaches who asked for it, whatever else is said before", async () => {
  const { qmp, peer } = await openMonitor()
  const asked = qmp.command("query-status", {}, { deadlineMs: 5000 })
  peer.write(`{"event": "STOP"}\n\n{"return": 1, "id": "99"}\n{"return": 2, "id": 2}\n{"return": {"a": 1}, `)
  peer.write(`"id": "2"}\n`)
  expect(await asked).toEqual({ a: 1 })
})

describe("a hostile one", () => {
  test.each([
    ["no JSON", "hello\n"],
    ["null", "null\n"],
    ["a number", "7\n"],
    ["a list", "[]\n"],
    ["text", `"QMP"\n`],
    ["half a character", Buffer.from([0xff, 0xfe, 0x0a])],
  ])("that says %s is closed, and who waits is told", async (_, words) => {
    const { qmp, peer, gone } = await openMonitor()
    const asked = failureOf(qmp.command("stop", {}, { deadlineMs: 30_000 }))
    peer.write(words)
    expect((await asked).code).toBe("unavailable")
    expect(qmp.isClosed).toBe(true)
    await gone
  })

  test("that greets with null fails the opening", async () => {
    expect((await failureOf(openMonitor("null\n"))).code).toBe("unavailable")
  })

  test("that never ends its line is closed", async () => {
    const { qmp, peer, gone } = await openMonitor()
    const asked = failureOf(qmp.command("stop", {}, { deadlineMs: 30_000 }))
    const flooding = flood(peer, Buffer.alloc(65_536, "x"))
    expect((await asked).message).toContain("too long")
    await gone
    await flooding
  })

  test("that tells events without end is closed, though each is good", async () => {
    const { qmp, peer, gone } = await openMonitor()
    const flooding = flood(peer, Buffer.from(`{"event": "RTC_CHANGE", "data": {"offset": 1}}\n`.repeat(1000)))
    await gone
    await flooding
    expect(qmp.isClosed).toBe(true)
  })

  test("that answers every other id, or nobody, costs the asker its deadline and no more", async () => {
    const { qmp, peer } = await openMonitor()
    const asked = failureOf(qmp.command("stop", {}, { deadlineMs }))
    peer.write(Array.from({ length: 100 }, (_, id) => `{"return": {}, "id": ${id}}\n`).join(""))
    expect((await asked).message).toContain("did not answer")
  })

  test("that does not greet fails the opening in time", async () => {
    expect((await failureOf(openMonitor(""))).message).toContain("greet")
  })

  test("cannot make an error of any length", async () => {
    const { qmp, peer } = await openMonitor()
    const asked = failureOf(qmp.command("stop", {}, { deadlineMs: 5000 }))
    peer.write(`${JSON.stringify({ error: { desc: "x".repeat(100_000) }, id: "2" })}\n`)
    expect((await asked).message.length).toBeLessThan(500)
  })

  test.each([[{ desc: 7 }], ["no"], [true]])("whose error is %p is told as an error", async (error) => {
    const { qmp, peer } = await openMonitor()
    const asked = failureOf(qmp.command("stop", {}, { deadlineMs: 5000 }))
    peer.write(`${JSON.stringify({ error, id: "2" })}\n`)
    expect((await asked).message).toContain("QEMU refused")
  })
})

/** Until the other side closes; bounded, so that a side that takes it all fails the test and not the host. */
async function flood(peer: Socket, bytes: Buffer): Promise<void> {
  const most = 256 * 1024 * 1024
  for (let sent = 0; sent < most && peer.readyState === 1; ) {
    sent += Math.max(0, peer.write(bytes))
    await new Promise((resolve) => setImmediate(resolve))
  }
}
