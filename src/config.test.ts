/** Sources of the daemon's configuration. */

import { expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { loadConfig, overruledFile } from "./config.ts"

test("an empty BHATTI_CONFIG counts as none, one that names a missing file is an error", () => {
  const named = { BHATTI_CONFIG: "/nonexistent/named.yaml" }
  expect(loadConfig({ configPath: "/dev/null" }, { BHATTI_CONFIG: "" })).toEqual(
    loadConfig({ configPath: "/dev/null" }, {}),
  )
  expect(() => loadConfig({}, named)).toThrow(AppError)
})

test("a data directory that is named has its own configuration, and what is not read is told", () => {
  const dataDir = mkdtempSync(join(tmpdir(), "bhatti-config-"))
  const named = { BHATTI_CONFIG: join(dataDir, "other.yaml") }
  try {
    writeFileSync(join(dataDir, "config.yaml"), "pool: 7\n")
    writeFileSync(named.BHATTI_CONFIG, "pool: 1\n")
    expect(loadConfig({ dataDir }, named).pool).toBe(7)
    expect(loadConfig({ dataDir, configPath: named.BHATTI_CONFIG }, {}).pool).toBe(1)
    expect(loadConfig({}, named).pool).toBe(1)
    expect(overruledFile({ dataDir }, named)).toBe(named.BHATTI_CONFIG)
    expect(overruledFile({}, named)).toBeUndefined()
  } finally {
    rmSync(dataDir, { recursive: true })
  }
})

test("a configuration that is there and empty is an error, one that is not there is the defaults", () => {
  const dataDir = mkdtempSync(join(tmpdir(), "bhatti-config-"))
  try {
    expect(loadConfig({ dataDir }, {}).data_dir).toBe(dataDir)
    writeFileSync(join(dataDir, "config.yaml"), "")
    expect(() => loadConfig({ dataDir }, {})).toThrow("is empty")
    writeFileSync(join(dataDir, "config.yaml"), "# all as it comes\n")
    expect(loadConfig({ dataDir }, {}).data_dir).toBe(dataDir)
  } finally {
    rmSync(dataDir, { recursive: true })
  }
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
