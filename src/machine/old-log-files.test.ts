/** Files in which an earlier version has kept QEMU's words: a host that was updated gets their space back. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"
import { emptyOldLogs } from "./old-log-files.ts"
import { listenSockets } from "./sockets.ts"

let sandboxes = ""
const logOf = (id: string) => join(sandboxes, id, "qemu.log")
beforeEach(() => {
  sandboxes = mkdtempSync("/tmp/bhatti-words-")
  for (const id of ["sb_1", "sb_2"]) {
    mkdirSync(join(sandboxes, id))
    writeFileSync(logOf(id), "qemu: 0x7f0012345678\n".repeat(1000))
  }
})
afterEach(() => rmSync(sandboxes, { recursive: true }))

test("a daemon's start empties them, and a machine that still writes to one may go on", async () => {
  mkdirSync(join(sandboxes, "sb_3"))
  writeFileSync(join(sandboxes, "elsewhere"), "not ours")
  symlinkSync(join(sandboxes, "elsewhere"), logOf("sb_3"))
  await emptyOldLogs(sandboxes)
  for (const id of ["sb_1", "sb_2"]) expect(readFileSync(logOf(id), "utf8")).toBe("")
  appendFileSync(logOf("sb_1"), "more")
  expect(readFileSync(logOf("sb_1"), "utf8")).toBe("more")
  expect(readFileSync(join(sandboxes, "elsewhere"), "utf8")).toBe("not ours")
})

test("a data directory without sandboxes has none", async () => {
  await emptyOldLogs(join(sandboxes, "none"))
})

test("a sandbox's start removes its own", async () => {
  using _sockets = listenSockets(join(sandboxes, "sb_1"))
  expect([existsSync(logOf("sb_1")), existsSync(logOf("sb_2"))]).toEqual([false, true])
})
