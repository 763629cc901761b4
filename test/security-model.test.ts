/** docs/SECURITY-MODEL.md and docs/RELIABILITY.md name the test that shows each claim; every one of them exists. */

import { expect, test } from "bun:test"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dir, "..")

async function claimsOf(document: string, pattern: RegExp): Promise<{ path: string; name: string }[]> {
  const text = await Bun.file(join(root, document)).text()
  return [...text.matchAll(pattern)].map(([, path = "", name = ""]) => ({ path, name }))
}

async function missing(claims: { path: string; name: string }[]): Promise<string[]> {
  const found = await Promise.all(
    claims.map(async ({ path, name }) => {
      const file = Bun.file(join(root, path))
      const written = path.endsWith("_test.go") ? `func ${name}(t *testing.T)` : `"${name}"`
      return (await file.exists()) && (await file.text()).includes(written)
    }),
  )
  return claims.filter((_, index) => !found[index]).map(({ path, name }) => `${path}: ${name}`)
}

test("every test that the security model names exists", async () => {
  const claims = await claimsOf("docs/SECURITY-MODEL.md", /^\* `([^`]+)`: "(.+)"$/gm)
  expect(claims.length).toBeGreaterThan(40)
  const rows = await claimsOf("docs/SECURITY-MODEL.md", /\| `([^`]+)`: "(.+)" \|$/gm)
  expect(rows.length).toBeGreaterThan(10)
  expect(await missing([...claims, ...rows])).toEqual([])
})

test("every row of the reliability tables names a test that exists", async () => {
  const text = await Bun.file(join(root, "docs/RELIABILITY.md")).text()
  const rows = text.split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| fault "))
  const named = rows.map((row) => /\| `([^`]+)`: "(.+)" \|$/.exec(row))
  expect(rows.filter((_, index) => !named[index])).toEqual([])
  expect(await missing(named.map((found) => ({ path: found?.[1] ?? "", name: found?.[2] ?? "" })))).toEqual(
    [],
  )
})
