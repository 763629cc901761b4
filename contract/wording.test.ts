/** How a value that does not fit is told to whoever sent it. */

import { expect, test } from "bun:test"
import type { z } from "zod"
import { Exec } from "./exec.ts"
import { CreateSandbox } from "./sandbox.ts"
import { parseInput } from "./wording.ts"

function told(schema: z.ZodType, value: unknown): string | undefined {
  try {
    parseInput(schema, value)
    return undefined
  } catch (error) {
    return String(error).replace(/^AppError: ([\w.]+: )?/, "")
  }
}

test.each([
  ["must be at least 1", CreateSandbox, { cpus: 0 }],
  ["must be a number", CreateSandbox, { cpus: "1" }],
  ["must be a whole number", CreateSandbox, { cpus: 1.5 }],
  ["must not be empty", CreateSandbox, { init: "" }],
  ["must have at most 32768 characters", CreateSandbox, { env: { A: "x".repeat(40_000) } }],
  ["must be public or deny", CreateSandbox, { net_policy: { default: "x" } }],
  ["must be an IPv4 network such as 10.0.0.0/8", CreateSandbox, { net_policy: { allow_cidrs: ["x"] } }],
  ['unknown field "size"', CreateSandbox, { size: 1 }],
  ["is missing", Exec, {}],
  ["a command is needed", Exec, { cmd: [] }],
  ["must be more than 0", Exec, { cmd: ["true"], timeout_sec: 0 }],
])("%s", (message, schema, value) => {
  expect(told(schema, value)).toBe(message)
})
