/** Where the daemon's configuration comes from. */

import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { loadConfig } from "./config.ts"
import { AppError } from "./contract/errors.ts"

test("an empty BHATTI_CONFIG counts as none, one that names a missing file is an error", () => {
  const dataDir = "/nonexistent"
  expect(loadConfig({ dataDir }, { BHATTI_CONFIG: "" })).toEqual(loadConfig({ dataDir }, {}))
  expect(() => loadConfig({ dataDir }, { BHATTI_CONFIG: "/nonexistent/named.yaml" })).toThrow(AppError)
})

test("a key that is given twice is an error, in a comment and in a value it is not", () => {
  const dataDir = mkdtempSync(join(tmpdir(), "bhatti-config-"))
  const load = (text: string) => {
    writeFileSync(join(dataDir, "config.yaml"), text)
    return loadConfig({ dataDir }, {})
  }
  try {
    expect(() => load("pool: 1\nlisten: 127.0.0.1:1\npool: 2\n")).toThrow('has "pool" twice')
    expect(load("pool: 1\n# pool: 2\nmetrics_token: 'pool: 3, pool: 4, pool: 5'\n").pool).toBe(1)
  } finally {
    rmSync(dataDir, { recursive: true })
  }
})
