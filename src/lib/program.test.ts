/** External programs that succeed, fail, hang and flood. */
import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { runProgram } from "./program.ts"

const deadlineMs = 10_000

async function failureOf(promise: Promise<unknown>): Promise<AppError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof AppError) return error
  throw new Error("did not fail with an AppError")
}

test("gives back what the program wrote, and feeds it", async () => {
  expect((await runProgram(["cat"], { deadlineMs, stdin: Buffer.from("hello") })).toString()).toBe("hello")
})

test("a failure ends with the program's last words", async () => {
  const error = await failureOf(runProgram(["ls", "/no/such/file"], { deadlineMs }))
  expect(error.code).toBe("unavailable")
  expect(error.message).toContain("/no/such/file")
})

test("a missing program is named", async () => {
  const error = await failureOf(runProgram(["no-such-program"], { deadlineMs }))
  expect(error.message).toContain("no-such-program is not installed")
  expect(error.hint).toContain("install.sh")
})

test("the deadline ends it", async () => {
  const error = await failureOf(runProgram(["sleep", "100"], { deadlineMs: 50 }))
  expect(error.message).toContain("took longer")
})

test("endless output ends it", async () => {
  const error = await failureOf(runProgram(["yes"], { deadlineMs, stdoutBytesMax: 1000 }))
  expect(error.message).toContain("wrote more than 1000 bytes")
})
