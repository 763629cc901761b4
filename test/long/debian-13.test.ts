/**
 * Machines of Debian 13's QEMU, forked and cloned, on a host with Debian 12: in a root of Debian 13. It takes four
 * minutes, so only when it is asked for: `BHATTI_TEST_LONG=1 bun test test/long/debian-13.test.ts`.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { type Debian13, debian13 } from "../support/debian-13.ts"

const isAsked = process.env["BHATTI_TEST_LONG"] === "1"
const deadlineMs = 1_200_000

describe.skipIf(!isAsked)("with Debian 13's QEMU", () => {
  let debian: Debian13
  beforeAll(async () => {
    debian = await debian13()
  }, deadlineMs)
  afterAll(async () => {
    await debian?.[Symbol.asyncDispose]()
  }, 60_000)

  test.each([
    ["its machines are forked, and work", ["test/e2e/forked.vm.test.ts"]],
    ["they are confined like cloned ones", ["test/e2e/forked-confinement.vm.test.ts"]],
    ["the daemon makes zygotes, and sandboxes outlive both", ["test/e2e/zygotes.vm.test.ts"]],
  ])(
    "%s",
    async (_what, files) => {
      const command = ["bun", "test", ...files, "--timeout", `${deadlineMs}`]
      const { text, exitCode } = await debian.run(command, {
        BHATTI_TEST_LONG: "1",
        BHATTI_TEST_PATIENCE: "2",
      })
      expect([exitCode, exitCode === 0 ? "" : text]).toEqual([0, ""])
      expect(text).toContain("(pass)")
    },
    deadlineMs,
  )
})
