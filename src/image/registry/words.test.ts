/** Errors made of skopeo's words. */

import { expect, test } from "bun:test"
import { errorOf } from "./words.ts"

const ended = (stderr: string) => ({
  ...{ code: 1, stdout: Buffer.alloc(0), isLate: false, isTooMuch: false },
  stderr,
})
const textsOf = (stderr: string, credential: { username: string; password: string }) => {
  const { message, hint, cause } = errorOf(ended(stderr), "registry.example/app:1", credential)
  return `${message}\n${hint}\n${(cause as Error).message}`
}

test.each([
  ["an unknown failure", "surprise at"],
  ["a known failure", "unauthorized:"],
])("no error of %s shows the credential in any form", (_, words) => {
  const credential = { username: "robot", password: 'p"a\\ss/w?rd' }
  const pair = Buffer.from(`robot:${credential.password}`)
  const forms = [
    credential.password,
    JSON.stringify(credential.password).slice(1, -1),
    encodeURIComponent(credential.password),
    pair.toString("base64"),
    pair.toString("base64url"),
    Buffer.from(credential.password).toString("base64"),
  ]
  for (const form of forms) {
    const text = textsOf(`time="x" level=fatal msg="${words} https://robot:${form}@registry"`, credential)
    expect(text).not.toContain(form)
    expect(text).toContain("https://robot:[redacted]@registry")
  }
})

test("a credential does not change which failure it is", () => {
  const credential = { username: "u", password: "unauthorized" }
  expect(errorOf(ended("unauthorized"), "registry.example/app:1", credential).code).toBe("forbidden")
})
