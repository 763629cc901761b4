/** Random stacks of layers are merged as a small model merges them; the disk is read back without our code. */
import { afterAll, beforeAll, expect, test } from "bun:test"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import fc from "fast-check"
import { type DiskEntry, readExt4Tree } from "../../test/support/ext4-tree.ts"
import { type Modelled, mergeLayers } from "../../test/support/layer-model.ts"
import { writeImage } from "../../test/support/oci-layout.ts"
import { type TarEntry, tarOf } from "../../test/support/tar-bytes.ts"
import { unpackImage } from "./unpack.ts"

const numRuns = Number(process.env["LAYER_STACKS"] ?? 25)
let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "bhatti-model-"))
})
afterAll(() => rm(root, { recursive: true, force: true }))

const part = fc.constantFrom("a", "b", "c")
const path = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("/"))
const target = fc.oneof(
  path,
  path.map((to) => `/${to}`),
  fc.constantFrom("..", "../a", "../../b", ".", "missing"),
)
const mode = fc.constantFrom(0o755, 0o600, 0o4711, 0)
const uid = fc.constantFrom(0, 1, 100_000)
const entry: fc.Arbitrary<TarEntry> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ name: path, mode, uid, content: fc.constantFrom("", "one", "two") }) },
  { weight: 4, arbitrary: fc.record({ name: path, type: fc.constant("5"), mode, uid }) },
  { weight: 2, arbitrary: fc.record({ name: path, type: fc.constant("2"), uid, linkname: target }) },
  { weight: 2, arbitrary: fc.record({ name: path, type: fc.constant("1"), linkname: path }) },
  { weight: 1, arbitrary: fc.record({ name: path, type: fc.constantFrom("3", "4", "6"), mode, uid }) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fc.option(path, { nil: undefined }), fc.constantFrom("a", "b", ".wh..opq"))
      .map(([folder, name]) => ({
        name: folder === undefined ? `.wh.${name}` : `${folder}/.wh.${name}`,
      })),
  },
)
const layers = fc.array(fc.array(entry, { maxLength: 8 }), { minLength: 1, maxLength: 4 })

test("random stacks of layers give the tree that the model has, or both refuse them", async () => {
  await fc.assert(
    fc.asyncProperty(layers, async (stack) => {
      const modelled = mergeLayers(stack)
      // Most stacks at random are refused for a link that leads nowhere; few of those are enough.
      fc.pre(modelled !== undefined || stack.flat().length % 8 === 0)
      const made = await unpack(stack)
      expect(made === undefined ? "refused" : listDisk(made)).toEqual(
        modelled === undefined ? "refused" : listModel(modelled),
      )
    }),
    { numRuns },
  )
}, 3_600_000)

async function unpack(stack: TarEntry[][]): Promise<Map<string, DiskEntry> | undefined> {
  const layout = await mkdtemp(join(root, "layout-"))
  const directory = await mkdtemp(join(root, "work-"))
  try {
    const manifestDigest = await writeImage(layout, stack.map(tarOf))
    return readExt4Tree((await unpackImage({ layout, manifestDigest, directory, uid: 799_000 })).disk)
  } catch (error) {
    if (error instanceof AppError && error.reason !== undefined) return undefined
    throw error
  } finally {
    for (const path of [layout, directory]) await rm(path, { recursive: true, force: true })
  }
}

const letters: Record<string, string> = {
  file: "0",
  directory: "5",
  symlink: "2",
  char: "3",
  block: "4",
  pipe: "6",
  socket: "s",
}

/** A line for each name; names of one file have the same first name beside them. */
function listDisk(tree: Map<string, DiskEntry>): string[] {
  const first = new Map<number, string>()
  return [...tree.keys()].sort().map((name) => {
    const { kind, mode, uid, content, inode } = tree.get(name) as DiskEntry
    if (!first.has(inode)) first.set(inode, name)
    return `${name} ${letters[kind]} ${mode.toString(8)} ${uid} ${content ?? ""} = ${first.get(inode)}`
  })
}

function listModel(root: Modelled): string[] {
  const all = new Map<string, Modelled>()
  const visit = (name: string, at: Modelled) => {
    all.set(name, at)
    for (const [child, below] of at.children) visit(name === "" ? child : `${name}/${child}`, below)
  }
  visit("", root)
  const first = new Map<Modelled, string>()
  return [...all.keys()].sort().map((name) => {
    const at = all.get(name) as Modelled
    if (!first.has(at)) first.set(at, name)
    return `${name} ${at.kind} ${at.mode.toString(8)} ${at.uid} ${at.text} = ${first.get(at)}`
  })
}
