/** Streamed answers end with their reader and with their key, and a part is never taken for the whole. */

import { expect, test } from "bun:test"
import { bytesReply } from "./bytes.ts"
import { StreamedAnswer } from "./streamed-answer.ts"

const log = { info() {}, warn() {}, error() {} }
const never = () => new Promise<never>(() => undefined)

function sourceOf(output: AsyncIterable<Uint8Array>, result: Promise<unknown> = Promise.resolve()) {
  const source = { output, result, closed: 0, close: () => void source.closed++ }
  return source
}

test("one that was closed neither goes on nor ends as if it were whole", async () => {
  let closed = 0
  const answer = new StreamedAnswer({ headers: {}, next: never, onClosed: () => void closed++ })
  const waiting = answer.read()
  answer.close(new Error("left"))
  answer.close()
  await expect(waiting).rejects.toThrow("left")
  await expect(answer.read()).rejects.toThrow("left")
  expect(closed).toBe(1)
})

test("a download whose key is taken away between two pieces does not end as if it were whole", async () => {
  const revoked = new AbortController()
  const source = sourceOf(
    (async function* () {
      yield Buffer.from("one")
      yield Buffer.from("two")
    })(),
  )
  const answer = await bytesReply(source, { headers: {}, revoked: revoked.signal, log })
  expect(await answer.read()).toEqual(Buffer.from("one"))
  revoked.abort(new Error("revoked"))
  expect(source.closed).toBe(1)
  await expect(answer.read()).rejects.toThrow("revoked")
})

test("one whose key is taken away before it begins is refused", async () => {
  const revoked = new AbortController()
  const ending = Promise.withResolvers<void>()
  setImmediate(() => {
    revoked.abort(new Error("revoked"))
    ending.resolve()
  })
  const source = sourceOf((async function* () {})(), ending.promise)
  const reply = bytesReply(source, { headers: {}, revoked: revoked.signal, log })
  await expect(reply).rejects.toThrow("revoked")
  expect(source.closed).toBeGreaterThan(0)
})
