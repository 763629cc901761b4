/** A surface may have no schemas: core itself refuses bad input, and changes nothing. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import type { ProcessStart as AnyStart } from "@bhatti/contract/guest"
import { limits } from "@bhatti/contract/limits"
import { askGuest } from "../../src/core/ask-guest.ts"
import { createSandbox } from "../../src/core/create.ts"
import { createSandboxes } from "../../src/core/create-several.ts"
import { editSandbox } from "../../src/core/edit.ts"
import { openFile } from "../../src/core/files.ts"
import { startDetached } from "../../src/core/kept-processes.ts"
import { execInSandbox, openShell } from "../../src/core/processes.ts"
import { publishPort } from "../../src/core/publish.ts"
import { setSecret } from "../../src/core/secrets.ts"
import { createSnapshot, resumeSnapshot } from "../../src/core/snapshots.ts"
import type { Account } from "../../src/store/users.ts"
import { type HttpApp, openHttpApp } from "../support/http-app.ts"

type ProcessStart = Omit<AnyStart, "onDisconnect">

let app: HttpApp
let account: Account

beforeEach(async () => {
  app = await openHttpApp()
  const found = await app.core.store.users.findByKey(app.key)
  if (!found) throw new Error("the key belongs to nobody")
  account = found
})
afterEach(() => app[Symbol.asyncDispose]())

test("core refuses input that the API's schemas refuse", async () => {
  const { core } = app
  await createSandbox(core, account, { name: "dev" })
  await createSnapshot(core, account, "dev", "kept")
  const never = { timeoutSec: undefined }
  const run = (command: ProcessStart) => execInSandbox(core, account, "dev", { ...never, command })
  const before = await core.store.sandboxes.listOf(account)
  const refused: [string, () => Promise<unknown>][] = [
    ["name", () => createSandbox(core, account, { name: "../dev" })],
    ["name like an id", () => createSandbox(core, account, { name: "sb_0123456789abcdef" })],
    ["name of a copy", () => createSandbox(core, account, { name: "a b", from: "dev" })],
    ["cpus", () => createSandbox(core, account, { cpus: 0.5 })],
    ["memory", () => createSandbox(core, account, { memoryMib: 1 })],
    ["variable", () => createSandbox(core, account, { env: { "A=B": "x" } })],
    ["label", () => createSandbox(core, account, { labels: { "bhatti.sh/owner": "x" } })],
    ["description", () => createSandbox(core, account, { description: "two\nlines" })],
    ["time until it is paused", () => createSandbox(core, account, { warmAfterSec: -1 })],
    ["network", () => createSandbox(core, account, { netPolicy: { allow_hosts: ["no name"] } })],
    ["label of several", () => createSandboxes(core, account, { labels: { "": "x" } }, { count: 2 })],
    ["number of several", () => createSandboxes(core, account, {}, { count: limits.createCountMax + 1 })],
    ["number of none", () => createSandboxes(core, account, {}, { count: 0 })],
    ["new name", () => editSandbox(core, account, "dev", { name: "" })],
    ["new label", () => editSandbox(core, account, "dev", { labelsAdd: { a: "b c" } })],
    ["new network", () => editSandbox(core, account, "dev", { netPolicy: { allow_cidrs: ["0.0.0.0/0"] } })],
    ["reserved alias", () => publishPort(core, account, "dev", { port: 80, alias: "admin" })],
    ["alias", () => publishPort(core, account, "dev", { port: 80, alias: "a.b" })],
    ["port", () => publishPort(core, account, "dev", { port: 0 })],
    ["secret's name", () => setSecret(core, account, { name: "A B", value: "x" })],
    ["secret's size", () => setSecret(core, account, { name: "A", value: "x".repeat(32 * 1024 + 1) })],
    ["snapshot's name", () => createSnapshot(core, account, "dev", "a/b")],
    ["command", () => run({ argv: ["true", "a\0b"] })],
    ["no program", () => run({ argv: [""] })],
    ["variable of a command", () => run({ argv: ["true"], env: { "A B": "x" } })],
    ["user", () => run({ argv: ["true"], user: "Root!" })],
    ["size of a command's terminal", () => run({ argv: ["true"], tty: { rows: 0, cols: 80 } })],
    ["timeout", () => execInSandbox(core, account, "dev", { command: { argv: ["true"] }, timeoutSec: 0 })],
    ["detached command", () => startDetached(core, account, "dev", { ...never, command: { argv: [] } })],
    [
      "size of a shell",
      () =>
        openShell(core, account, "dev", { session: undefined, forceNew: true, tty: { rows: 24, cols: 0.5 } }),
    ],
    ["path", () => askGuest(core, account, "dev", { op: "statFile", path: "" })],
    ["target of a move", () => askGuest(core, account, "dev", { op: "moveFile", from: "a", to: "b\0" })],
    ["file to read", () => openFile(core, account, "dev", { op: "readFile", path: "x".repeat(5000) })],
    ["resumed name", () => resumeSnapshot(core, account, "kept", { name: "a/b", secrets: [] })],
  ]
  const accepted: string[] = []
  for (const [what, attempt] of refused) {
    const code = await attempt().then(
      () => "accepted",
      (error: { code?: string }) => error.code ?? String(error),
    )
    if (code !== "invalid") accepted.push(`${what}: ${code}`)
  }
  expect(accepted).toEqual([])
  expect(await core.store.sandboxes.listOf(account)).toEqual(before)
})
