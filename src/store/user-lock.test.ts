/** No limit is passed by several processes that write to one database at once. */

import { expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { limits } from "@bhatti/contract/limits"
import { aSandbox } from "../../test/support/store-suite.ts"
import { openStore } from "./store.ts"

const program = join(import.meta.dir, "../../test/support/store-writer.ts")

test("three processes that add to one user at once fill its limits exactly", async () => {
  const dataDir = mkdtempSync("/tmp/bhatti-writers-")
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rmSync(dataDir, { recursive: true }))
  const store = await openStore({ dataDir })
  undo.defer(() => store.close())
  const { key } = await store.users.create({ name: "ann", maxSandboxes: 50 })
  const account = await store.users.findByKey(key)
  if (!account) throw new Error("no account")
  const { id } = await store.sandboxes.add(account, aSandbox("source"), { isSlotInUse: () => false })
  await store.sandboxes.setTemplate(id, "template")

  const writers = [1, 2, 3].map((number) =>
    Bun.spawn([process.execPath, program, dataDir, key, String(number)], { stdin: "pipe", stdout: "pipe" }),
  )
  for (const writer of writers) undo.defer(() => writer.kill())
  const results = await Promise.all(
    writers.map(async (writer) => {
      const output = writer.stdout.getReader()
      await output.read()
      return { writer, output }
    }),
  )
  for (const { writer } of results) await writer.stdin.end()
  const reports = await Promise.all(
    results.map(async ({ output }) => {
      let text = ""
      for (let chunk = await output.read(); !chunk.done; chunk = await output.read())
        text += Buffer.from(chunk.value).toString()
      return JSON.parse(text) as { accepted: Record<string, number>; refusals: string[] }
    }),
  )
  expect(reports.map(({ refusals }) => refusals)).toEqual(reports.map(() => ["limit_exceeded"]))
  const sum = (what: string) => reports.reduce((total, { accepted }) => total + (accepted[what] ?? 0), 0)
  expect(sum("sandboxes")).toBe(50 - 1)
  expect(sum("snapshots")).toBe(limits.snapshotsMax)
  expect(sum("secrets")).toBe(limits.secretsMax)
  expect(sum("aliases")).toBe(limits.publishedPortsMax)
  const sandboxes = await store.sandboxes.listOf(account)
  expect(new Set(sandboxes.map(({ slot }) => slot)).size).toBe(50)
  expect(await store.publishedPorts.listOf([id])).toHaveLength(limits.publishedPortsMax)
}, 60_000)
