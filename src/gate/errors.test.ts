/** Any thrown value becomes an AppError. */

import { expect, test } from "bun:test"
import { AppError } from "@bhatti/contract/errors"
import { toAppError } from "./errors.ts"

test("what is not an AppError is internal, and says nothing of itself", () => {
  expect(toAppError(new TypeError("secret"))).toMatchObject({ code: "internal", message: "internal error" })
})

test("a full disk is said, wherever it was met", () => {
  const full = Object.assign(new Error("ENOSPC: no space left"), { code: "ENOSPC" })
  expect(toAppError(full)).toMatchObject({ code: "unavailable", message: "the host's disk is full" })
})

test("a file system that may not be written is said, wherever it was met", () => {
  const readOnly = Object.assign(new Error("EROFS: read-only file system"), { code: "EROFS" })
  expect(toAppError(readOnly)).toMatchObject({
    code: "unavailable",
    message: "the host's file system is read-only",
  })
})

test("when a clean-up fails too the caller is told what it was about", () => {
  const first = new AppError("conflict", "it is there already", { hint: "choose another" })
  const both = new SuppressedError(new Error("could not undo"), first)
  expect(toAppError(both)).toMatchObject({
    code: "conflict",
    hint: "choose another",
    retryable: false,
    cause: both,
  })
  expect(toAppError(new SuppressedError(first, new Error("a bug"))).code).toBe("internal")
})
