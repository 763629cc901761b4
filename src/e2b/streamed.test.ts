/** The end of a streamed answer of e2b's agent. */

import { expect, test } from "bun:test"
import { until } from "../../test/support/installation.ts"
import { streamed } from "./streamed.ts"

test("a body that its client leaves between two pieces is ended", async () => {
  let isEnded = false
  const body = (async function* () {
    try {
      for (;;) yield new Uint8Array(1)
    } finally {
      isEnded = true
    }
  })()
  const stop = new AbortController()
  const { bytes } = streamed({ status: 200, body }, { stop, revoked: new AbortController().signal })
  expect(await bytes?.read()).toHaveLength(1)
  bytes?.close()
  expect(stop.signal.aborted).toBe(true)
  await until("the body is ended", () => isEnded)
})
