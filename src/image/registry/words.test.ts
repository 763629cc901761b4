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

test.each([
  ["dial tcp 127.0.0.1:1: connect: connection refused", "nothing listens at its port"],
  ["dial tcp: lookup registry.example on 10.0.0.1:53: no such host", "its name is unknown"],
  ["dial tcp 192.0.2.1:443: i/o timeout", "it does not answer"],
  ["dial tcp 10.1.2.3:443: connect: operation not permitted", "its address is not public"],
])("an unreachable registry is named, with the cause and the next step: %s", (words, cause) => {
  const { message, hint, reason } = errorOf(
    ended(`level=fatal msg="${words}"`),
    "registry.example:5000/app:1",
    undefined,
  )
  expect(message).toStartWith(`the registry registry.example:5000 cannot be reached: ${cause}`)
  expect(hint).toContain("name and port")
  expect(hint).toContain("config.yaml")
  expect(reason).toBe("registry_unreachable")
})
