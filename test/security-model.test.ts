/** docs/SECURITY-MODEL.md names the test that shows each claim; every one of them exists. */

import { expect, test } from "bun:test"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dir, "..")

test("every test that the security model names exists", async () => {
  const text = await Bun.file(join(root, "docs/SECURITY-MODEL.md")).text()
  const claims = [...text.matchAll(/^\* `([^`]+)`: "(.+)"$/gm)]
  expect(claims.length).toBeGreaterThan(40)
  const missing: string[] = []
  for (const [, path = "", name = ""] of claims) {
    const file = Bun.file(join(root, path))
    const isThere = (await file.exists()) && (await file.text()).includes(`"${name}"`)
    if (!isThere) missing.push(`${path}: ${name}`)
  }
  expect(missing).toEqual([])
})
