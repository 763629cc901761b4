/** The client's exec stream as a library, against a daemon that counts what is unacknowledged. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { limits } from "@bhatti/contract/limits"
import { type Client, connect } from "@bhatti/sdk/client"
import { Daemon } from "./daemon.ts"
import { until } from "./program.ts"

const windowBytes = limits.execStreamWindowBytes
let daemon: Daemon
let client: Client
beforeAll(async () => {
  daemon = await Daemon.start()
  await daemon.sandbox("dev")
  client = connect({ url: daemon.url, token: daemon.key })
})
afterAll(() => daemon[Symbol.asyncDispose]())

test("output, then how it ended", async () => {
  const run = client.execStream("dev", { cmd: ["both"] })
  const output: string[] = []
  for await (const { channel, bytes } of run.output)
    output.push(`${channel} ${new TextDecoder().decode(bytes)}`)
  expect(output).toEqual(["stdout out 1\n", "stderr err 1\n", "stdout out 2\n"])
  expect(await run.exit).toMatchObject({ exit_code: 0, signal: null, timed_out: false, reason: "exited" })
})

test("nothing is acknowledged before the reader has taken it", async () => {
  const run = client.execStream("dev", { cmd: ["flood", "50000000"], window: 65_536 })
  const reader = run.output
  await reader.next()
  await until("the daemon to have used its window", () => daemon.lastExec.sentBytes === 65_536)
  expect(daemon.lastExec.unacknowledgedMax).toBe(65_536)
  for (let taken = 0; taken < 100; taken++) await reader.next()
  expect(daemon.lastExec.unacknowledgedMax).toBe(65_536)
  run.close()
})

test("input is written within the window, and ends", async () => {
  const run = client.execStream("dev", { cmd: ["count"], stdin: true })
  const bytes = new Uint8Array(3 * windowBytes)
  await run.write(bytes)
  run.endInput()
  let text = ""
  for await (const piece of run.output) text += new TextDecoder().decode(piece.bytes)
  expect(text).toBe(`${bytes.length}\n`)
  await run.write(bytes)
})

test("signals sent before the connection is open are not lost", async () => {
  const run = client.execStream("dev", { cmd: ["sleep"] })
  run.signal("INT")
  expect(await run.exit).toMatchObject({ exit_code: 130, signal: "INT" })
})

test("a refused connection says what the daemon would have said", async () => {
  const wrongKey = connect({ url: daemon.url, token: "bht_wrong" }).execStream("dev", { cmd: ["echo"] })
  for await (const _ of wrongKey.output) throw new Error("there was output")
  expect(await wrongKey.exit.catch((error: unknown) => error)).toMatchObject({ code: "unauthenticated" })
  const nobody = connect({ url: "http://127.0.0.1:9" }).execStream("dev", { cmd: ["echo"] })
  expect(await nobody.exit.catch((error: unknown) => error)).toMatchObject({ code: "unavailable" })
})

test("close ends the reading and kills the command", async () => {
  const run = client.execStream("dev", { cmd: ["sleep"] })
  await until("the command to run", () => daemon.lastExec.start?.cmd[0] === "sleep")
  const reading = run.output.next()
  run.close()
  expect(await reading).toEqual({ done: true, value: undefined })
  await until("the daemon to see it", () => daemon.lastExec.isClosed)
  expect(await run.exit.catch((error: unknown) => error)).toMatchObject({ code: "unavailable" })
})

test("a message that is no JSON is an error of ours", async () => {
  daemon.execs.length = 0
  const run = client.execStream("dev", { cmd: ["sleep"] })
  await until("the command to run", () => daemon.execs.at(-1)?.start !== undefined)
  daemon.lastExec.babble("no JSON at all")
  for await (const _ of run.output) throw new Error("there was output")
  expect(await run.exit.catch((error: unknown) => error)).toMatchObject({
    name: "AppError",
    code: "internal",
    message: "the daemon sent something that is not a message",
  })
})
