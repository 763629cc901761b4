/** Files that a program without rights has left are not followed when root changes them. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Blobs } from "./blobs.ts"
import { refuseLinks } from "./staging.ts"

let root: string
let secret: string
beforeEach(() => {
  root = mkdtempSync("/tmp/bhatti-staging-")
  secret = join(root, "secret")
  writeFileSync(secret, "the host's", { mode: 0o600 })
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const modeOf = (path: string) => statSync(path).mode & 0o777

test("a blob that is a link to a file of the host is refused, and that file stays as it is", async () => {
  const hex = createHash("sha256").update("the host's").digest("hex")
  const work = join(root, "work")
  mkdirSync(work)
  symlinkSync(secret, join(work, hex))
  const taking = new Blobs(join(root, "blobs")).takeFrom(work, "registry", [{ digest: `sha256:${hex}` }])
  await expect(taking).rejects.toMatchObject({ reason: "missing_blob" })
  expect(modeOf(secret)).toBe(0o600)
})

test("a directory of blobs that is a link is refused", async () => {
  const outside = join(root, "outside")
  const blobs = join(root, "blobs")
  mkdirSync(outside)
  await refuseLinks([root, outside])
  symlinkSync(outside, blobs)
  await expect(refuseLinks([root, blobs])).rejects.toMatchObject({ reason: "missing_blob" })
})
