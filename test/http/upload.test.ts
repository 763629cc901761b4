/** An upload of any length is carried in the same memory. */

import { heapStats } from "bun:jsc"
import { expect, test } from "bun:test"
import { writeFile } from "../../src/core/files.ts"
import { openHttpApp } from "../support/http-app.ts"

test("a piece that was sent leaves nothing in memory", async () => {
  await using app = await openHttpApp()
  expect((await app.call("POST", "/sandboxes", { name: "dev" })).status).toBe(201)
  const account = await app.core.store.users.findByKey(app.key)
  if (!account) throw new Error("the key is nobody's")
  const counts: number[] = []
  async function* pieces() {
    for (let round = 0; round < 3; round++) {
      for (let piece = 0; piece < 10_000; piece++) yield new Uint8Array(1)
      Bun.gc(true)
      counts.push(heapStats().objectCount)
    }
  }
  const signal = new AbortController().signal
  await writeFile(app.core, account, "dev", {
    path: "/x",
    mode: undefined,
    owner: undefined,
    size: undefined,
    body: pieces(),
    signal,
  })
  const [, second = 0, third = 0] = counts
  expect(third - second).toBeLessThan(1000)
})
