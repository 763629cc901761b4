/** The digest of disks depends on content only. */
import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { diskDigest } from "./sparse.ts"

const root = mkdtempSync(join(tmpdir(), "bhatti-sparse-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const mib = 1024 * 1024

async function disk(
  name: string,
  size: number,
  writes: Record<number, string | Uint8Array>,
): Promise<string> {
  const path = join(root, name)
  await using file = await open(path, "w")
  await file.truncate(size)
  for (const [offset, content] of Object.entries(writes)) {
    const bytes = Buffer.from(content as Uint8Array)
    await file.write(bytes, 0, bytes.length, Number(offset))
  }
  return path
}

test("holes and stored zeros are the same", async () => {
  const holes = await disk("holes", 64 * mib + 5, { [3 * mib]: "data" })
  const zeros = await disk("zeros", 64 * mib + 5, { 0: Buffer.alloc(2 * mib), [3 * mib]: "data" })
  expect(await diskDigest(holes)).toBe(await diskDigest(zeros))
})

test("content, place and size all count", async () => {
  const digests = await Promise.all([
    disk("a", 8 * mib, { [3 * mib]: "data" }).then(diskDigest),
    disk("b", 8 * mib, { [3 * mib]: "Data" }).then(diskDigest),
    disk("c", 8 * mib, { [4 * mib]: "data" }).then(diskDigest),
    disk("d", 9 * mib, { [3 * mib]: "data" }).then(diskDigest),
    disk("e", 8 * mib, { [8 * mib - 1]: "d" }).then(diskDigest),
    disk("f", 8 * mib, {}).then(diskDigest),
  ])
  expect(new Set(digests).size).toBe(digests.length)
})
