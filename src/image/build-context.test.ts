/** The directory of a build: every archive becomes an index and contents, or a refusal. */

import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { type Header, pack } from "tar-stream"
import { BuildContexts } from "./build-context.ts"
import { tasksDirectory } from "./registry/staging.ts"

const dataDir = mkdtempSync("/tmp/bhatti-context-")
afterAll(() => rmSync(dataDir, { recursive: true }))
const contexts = new BuildContexts({ dataDir, freeBytes: 0 })

async function* archive(...entries: [Partial<Header> & { name: string }, string?][]) {
  const packing = pack()
  for (const [header, content] of entries) packing.entry(header as Header, content ?? "")
  packing.finalize()
  yield* packing as AsyncIterable<Uint8Array>
}
const receive = (bytes: AsyncIterable<Uint8Array>, bytesMax = 1024 * 1024) =>
  contexts.receive(bytes, { bytesMax })
const left = () => readdirSync(tasksDirectory(dataDir))

test("a directory keeps its files, links and modes, and is gone when it is disposed", async () => {
  const big = "x".repeat(3_000_000)
  {
    await using context = await receive(
      archive(
        [{ name: "./a/", type: "directory", mode: 0o750 }],
        [{ name: "./a/b", mode: 0o4755, mtime: new Date(1000) }, "text"],
        [{ name: "a/link", type: "symlink", linkname: "../x" }],
        [{ name: "hard", type: "link", linkname: "a/b" }],
        [{ name: "pipe", type: "fifo" }],
        [{ name: "big" }, big],
      ),
      4 * 1024 * 1024,
    )
    expect([...context.entries.keys()]).toEqual(["a", "a/b", "a/link", "hard", "big"])
    expect(context.entries.get("a/b")).toMatchObject({
      kind: "file",
      mode: 0o4755,
      size: 4,
      modifiedMs: 1000,
    })
    expect(context.entries.get("a/link")).toMatchObject({ kind: "link", link: "../x" })
    const read = async (path: string) =>
      (await Array.fromAsync(context.read(path))).map((one) => Buffer.from(one))
    expect(Buffer.concat(await read("hard")).toString()).toBe("text")
    expect(Buffer.concat(await read("big")).toString()).toBe(big)
    expect(left()).toHaveLength(1)
  }
  expect(left()).toEqual([])
})

test("a directory that is too large, cut, or names what lies outside is refused, and leaves nothing", async () => {
  const cut = async function* () {
    for await (const piece of archive([{ name: "a" }, "x".repeat(2000)])) yield piece.subarray(0, 700)
  }
  for (const [bytes, refusal] of [
    [archive([{ name: "a" }, "x".repeat(2 * 1024 * 1024)]), "larger than 1 MB"],
    [archive([{ name: "../a" }, "x"]), "an impossible name"],
    [cut(), "not a whole tar archive"],
    [
      (async function* () {
        yield Buffer.from("no archive at all, but long enough to be a header".repeat(20))
      })(),
      "not a whole tar archive",
    ],
  ] as const)
    await expect(receive(bytes)).rejects.toThrow(refusal)
  expect(left()).toEqual([])
})
