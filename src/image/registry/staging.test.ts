/** Files that a program without rights has left are not followed when root changes them. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { createHash } from "node:crypto"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
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
  const wanted = [{ digest: `sha256:${hex}` }]
  const where = { linked: new Map(), into: root }
  const taking = new Blobs(join(root, "blobs")).takeFrom(work, "registry", wanted, where)
  await expect(taking).rejects.toMatchObject({ reason: "missing_blob" })
  expect(modeOf(secret)).toBe(0o600)
})

test("layers that are evicted while a pull needs them are there for it all the same", async () => {
  const blobs = new Blobs(join(root, "blobs"))
  const [fetched, again, into, next] = ["fetched", "again", "into", "next"].map((name) => {
    mkdirSync(join(root, name))
    return join(root, name)
  }) as [string, string, string, string]
  const digests = ["one", "two"].map((text) => {
    const hex = createHash("sha256").update(text).digest("hex")
    writeFileSync(join(fetched, hex), text)
    return `sha256:${hex}`
  })
  const wanted = digests.map((digest) => ({ digest, size: 3 }))
  await blobs.takeFrom(fetched, "registry", wanted, { linked: new Map(), into })
  expect(readdirSync(into)).toHaveLength(2)
  // The next pull finds them, and then they go, each at once.
  const linked = await blobs.linkInto("registry", digests, again)
  expect(await blobs.evict(0)).toBe(2)
  await blobs.takeFrom(again, "registry", wanted, { linked, into: next })
  expect(readdirSync(next).sort()).toEqual(readdirSync(into).sort())
  // They are kept again.
  expect((await blobs.linkInto("registry", digests, mkdtempSync(join(root, "more-")))).size).toBe(2)
})

test("a file that a program puts in place of a kept layer is checked like any other", async () => {
  const blobs = new Blobs(join(root, "blobs"))
  const [fetched, again, into] = ["fetched", "again", "into"].map((name) => {
    mkdirSync(join(root, name))
    return join(root, name)
  }) as [string, string, string]
  const hex = createHash("sha256").update("one").digest("hex")
  const wanted = [{ digest: `sha256:${hex}`, size: 3 }]
  writeFileSync(join(fetched, hex), "one")
  await blobs.takeFrom(fetched, "registry", wanted, { linked: new Map(), into })
  const linked = await blobs.linkInto("registry", [`sha256:${hex}`], again)
  await blobs.evict(0)
  rmSync(join(again, hex))
  writeFileSync(join(again, hex), "two")
  const other = mkdtempSync(join(root, "other-"))
  const taking = blobs.takeFrom(again, "registry", wanted, { linked, into: other })
  await expect(taking).rejects.toMatchObject({ reason: "wrong_digest" })
})

test("a directory of blobs that is a link is refused", async () => {
  const outside = join(root, "outside")
  const blobs = join(root, "blobs")
  mkdirSync(outside)
  await refuseLinks([root, outside])
  symlinkSync(outside, blobs)
  await expect(refuseLinks([root, blobs])).rejects.toMatchObject({ reason: "missing_blob" })
})
