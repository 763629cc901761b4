/** The lock of a data directory. */

import { expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { lockDataDir } from "./lock.ts"

function refusal(work: () => unknown): AppError {
  try {
    work()
  } catch (error) {
    if (error instanceof AppError) return error
    throw error
  }
  throw new Error("it was not refused")
}

test("a data directory has one daemon, and one that is not there is not made", () => {
  const dataDir = mkdtempSync(join(tmpdir(), "bhatti-lock-"))
  using cleanup = new DisposableStack()
  cleanup.defer(() => rmSync(dataDir, { recursive: true }))
  {
    using _lock = lockDataDir(dataDir)
    expect(refusal(() => lockDataDir(dataDir)).code).toBe("conflict")
  }
  lockDataDir(dataDir)[Symbol.dispose]()
  expect(readdirSync(dataDir)).toEqual(["lock"])

  const mistyped = join(dataDir, "typo")
  expect(refusal(() => lockDataDir(mistyped))).toMatchObject({
    code: "not_found",
    message: `there is no data directory ${mistyped}`,
    hint: `sudo bhatti init --data-dir ${mistyped}`,
  })
  expect(existsSync(mistyped)).toBe(false)
  expect(refusal(() => lockDataDir("/dev/null")).code).toBe("not_found")
})
