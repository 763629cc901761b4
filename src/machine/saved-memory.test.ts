/** The files that are removed with a memory snapshot. */

import { expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { removeSnapshot, snapshotDirectory, unfinished } from "./saved-memory.ts"

test("a snapshot goes with what a crash has left of the next one, and nothing else does", async () => {
  const directory = mkdtempSync("/tmp/bhatti-snapshot-")
  try {
    const final = snapshotDirectory(directory)
    for (const path of [final, unfinished(final)]) {
      mkdirSync(path)
      writeFileSync(join(path, "memory"), "pages")
    }
    writeFileSync(join(directory, "disk.qcow2"), "disk")
    await removeSnapshot(directory)
    expect(readdirSync(directory)).toEqual(["disk.qcow2"])
    await removeSnapshot(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
