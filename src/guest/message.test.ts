/** Errors of a guest: their codes and reasons. */

import { expect, test } from "bun:test"
import { lossReasons, startReasons } from "@bhatti/contract/errors"
import { parseResult } from "./message.ts"

function reasonOf(reason: unknown): string | undefined {
  const result = parseResult(
    Buffer.from(JSON.stringify({ error: { code: "invalid", message: "x", reason } })),
  )
  return result.kind === "error" ? result.error.reason : "no error"
}

test("a guest gives reasons of its own and cannot pretend what only the daemon knows", () => {
  for (const reason of [...startReasons, "key_reused", "rebooted"]) expect(reasonOf(reason)).toBe(reason)
  for (const reason of [...lossReasons, "wake_failed", "key_revoked", "anything", 7, null, {}])
    expect(reasonOf(reason)).toBeUndefined()
})
