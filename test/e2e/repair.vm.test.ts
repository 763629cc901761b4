/** A guest whose file system has an error, on a real machine. */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { type Installation, install } from "../support/installation.ts"

let own: Installation
beforeAll(async () => {
  own = await install()
  expect((await own.bhatti(["create", "--name", "dev"])).exitCode).toBe(0)
}, 600_000)
afterAll(async () => {
  await own[Symbol.asyncDispose]()
}, 60_000)

const root = (script: string) => own.bhatti(["exec", "dev", "--", "sudo", "sh", "-c", script])

test("a damaged root is told by why and put right by repair", async () => {
  expect((await root("echo kept >/workspace/kept; sync")).exitCode).toBe(0)
  // As ext4 does itself at an error that it finds: the journal is given up, and what is mounted takes no more writes.
  await root("echo 1 >/sys/fs/ext4/vda/trigger_fs_error; mount -o remount,ro,abort /; true")
  const written = await own.bhatti(["file", "write", "dev", "/workspace/more"], { stdin: "more" })
  expect([written.exitCode, written.stderr]).toEqual([1, expect.stringContaining("read-only")])
  expect((await own.bhatti(["why", "dev"])).stdout).toContain("bhatti repair dev")

  const repaired = await own.bhatti(["repair", "dev", "--json"])
  expect([repaired.exitCode, repaired.stderr]).toEqual([0, ""])
  expect(JSON.parse(repaired.stdout)).toMatchObject({
    sandbox: { status: "running" },
    output: expect.stringContaining("bhatti"),
  })
  expect((await own.bhatti(["why", "dev"])).stdout).not.toContain("bhatti repair")
  expect(
    (await root("cat /workspace/kept; echo more >/workspace/more; grep ' / ext4 rw' /proc/mounts")).stdout,
  ).toStartWith("kept\n")
}, 180_000)
