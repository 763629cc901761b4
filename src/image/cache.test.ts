/** The cache keeps what is in use and removes the rest. */

import { expect, test } from "bun:test"
import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { tendCache } from "./cache.ts"

test("what was just used or used this month stays, the rest goes", async () => {
  const cacheDir = mkdtempSync(join(tmpdir(), "bhatti-cache-"))
  const day = 86_400
  const nowSec = 1_800_000_000
  const add = (path: string, daysAgo: number) => {
    mkdirSync(join(cacheDir, path, "below"), { recursive: true })
    utimesSync(join(cacheDir, path), nowSec, nowSec - daysAgo * day)
  }
  try {
    await tendCache(cacheDir, { used: [], nowMs: nowSec * 1000 })
    add("images/old", 31)
    add("images/young", 29)
    add("images/used", 400)
    add("kernel-packages/used", 400)
    add("kernel-packages/used-not", 400)
    writeFileSync(join(cacheDir, "kernel-packages/last.json"), "{}")
    utimesSync(join(cacheDir, "kernel-packages/last.json"), 1, 1)
    add("bench/old", 400)
    const used = [join(cacheDir, "images/used"), join(cacheDir, "kernel-packages/used/below")]
    await tendCache(cacheDir, { used, nowMs: nowSec * 1000 })
    const left = ["images", "kernel-packages", "bench"].map((name) =>
      readdirSync(join(cacheDir, name)).sort(),
    )
    expect(left).toEqual([["used", "young"], ["last.json", "used"], ["old"]])

    await tendCache(cacheDir, { used: [], nowMs: (nowSec + 20 * day) * 1000 })
    expect(readdirSync(join(cacheDir, "images"))).toEqual(["used"])
  } finally {
    rmSync(cacheDir, { recursive: true })
  }
})

test.if(process.getuid?.() === 0)("what is another user's stays as it is", async () => {
  const cacheDir = mkdtempSync(join(tmpdir(), "bhatti-cache-"))
  const path = join(cacheDir, "images/old")
  try {
    mkdirSync(path, { recursive: true })
    chownSync(path, 12_345, 12_345)
    utimesSync(path, 1, 1)
    await tendCache(cacheDir, { used: [path], nowMs: Date.now() })
    await tendCache(cacheDir, { used: [], nowMs: Date.now() })
    expect(statSync(path).mtimeMs).toBe(1000)
  } finally {
    rmSync(cacheDir, { recursive: true })
  }
})
