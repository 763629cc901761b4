/** COPY: which entries of a directory it takes, and where they go. */

import { expect, test } from "bun:test"
import { type Selectable, select } from "./select.ts"

const entry = (path: string, link: string | null = null): [string, Selectable] => [
  path,
  { path, link, kind: link !== null ? "link" : /\.|^LICENSE$/.test(path) ? "file" : "directory" },
]
const entries = new Map([
  ...["a.txt", "b.txt", "LICENSE", "src", "src/main.c", "src/deep", "src/deep/x.c"].map((path) =>
    entry(path),
  ),
  entry("src/out", "../a.txt"),
  entry("latest", "src"),
  entry("loop", "loop"),
  entry("lost", "nowhere"),
])
function taken(target: string, ...sources: string[]) {
  const { items, isInto } = select(entries, { sources, target, line: 9 })
  return [isInto, ...items.map(({ entry, to }) => `${entry.path}>${to}`)]
}

test("a file keeps its name, and a directory gives its contents, links among them as links", () => {
  expect(taken("/x", "a.txt")).toEqual([false, "a.txt>a.txt"])
  expect(taken("/x/", "/a.txt", "./LICENSE")).toEqual([true, "LICENSE>LICENSE", "a.txt>a.txt"])
  const below = ["src/deep>deep", "src/deep/x.c>deep/x.c", "src/main.c>main.c", "src/out>out"]
  expect(taken("/x", "src")).toEqual([true, ...below])
  expect(taken("/x", "src/")).toEqual([true, ...below])
  expect(taken("/x", "latest")).toEqual([true, ...below])
  expect(taken("/x", "src/out")).toEqual([false, "a.txt>out"])
  expect(taken("/x", ".")).toHaveLength(entries.size + 1)
})

test("a pattern stays within a name", () => {
  expect(taken("/x/", "*.txt")).toEqual([true, "a.txt>a.txt", "b.txt>b.txt"])
  expect(taken("/x/", "src/*.c", "[L]*")).toEqual([true, "LICENSE>LICENSE", "src/main.c>main.c"])
})

test("a source that is not there, leads out or means several files for one is refused with the line", () => {
  for (const [source, refusal] of [
    ["none", '"none" is not in the build\'s directory'],
    ["*.none", '"*.none" is not in the build\'s directory'],
    ["../a.txt", '"../a.txt" leads out of the build\'s directory'],
    ["*.txt", '"*.txt" is several files, and the target does not end in a slash'],
    ["loop", '"loop" is a link that leads to itself'],
    ["lost", '"lost" is a link to a file that is not in the build\'s directory'],
    ["[a", '"[a" is no pattern: "[a" has a [ without a ]'],
  ] as const)
    expect(() => taken("/x", source)).toThrow(`Dockerfile, line 9: ${refusal}`)
})
