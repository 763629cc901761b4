/** The sockets of machines that do not start. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { unlessMissing } from "../lib/missing-files.ts"
import { startConnected } from "./sockets.ts"

let directory = ""
beforeEach(() => {
  directory = mkdtempSync("/tmp/bhatti-sockets-")
})
afterEach(() => rmSync(directory, { recursive: true }))

const sockets = () =>
  readdirSync("/proc/self/fd").filter((fd) =>
    unlessMissing(() => readlinkSync(`/proc/self/fd/${fd}`))?.startsWith("socket:"),
  ).length
const guest = { close: () => undefined }
const fails = () => Promise.reject(new Error("it fails"))

test.each([
  ["before its guest is connected to", fails, async () => undefined],
  ["before QEMU has its sockets", async () => guest, fails],
])("a start that fails %s leaves no socket open", async (_when, connect, run) => {
  const before = sockets()
  await expect(startConnected(directory, connect, run)).rejects.toThrow("it fails")
  expect(sockets()).toBe(before)
})
