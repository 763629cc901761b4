/** Rules of the repository that a machine can check. */

import { expect, test } from "bun:test"
import { basename, join, resolve } from "node:path"

const root = resolve(import.meta.dir, "..")
const bannedNames =
  /(^|[-.])(utils?|helpers?|misc|common|manager|service|handlers?|data|info|impl|v2|new|legacy)([-.]|$)/

async function sources(pattern: string): Promise<{ file: string; text: string }[]> {
  const files = [...new Bun.Glob(pattern).scanSync(root)].filter((file) => !file.startsWith("node_modules/"))
  return Promise.all(files.map(async (file) => ({ file, text: await Bun.file(join(root, file)).text() })))
}

test("every source file opens with what it owns", async () => {
  const wrong = (await sources("{src,images,scripts,bench,test}/**/*.ts"))
    .filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("every Go file opens with a comment", async () => {
  const wrong = (await sources("{agent,jail}/**/*.go"))
    .filter(({ text }) => !text.startsWith("//"))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("files are named after the one thing they hold", async () => {
  const wrong = (await sources("src/**/*.ts"))
    .map(({ file }) => file)
    .filter((file) => bannedNames.test(basename(file)))
  expect(wrong).toEqual([])
})

test("no error's text decides anything, and no error is swallowed", async () => {
  const wrong = (await sources("src/**/*.ts"))
    .filter(({ text }) => /\.message\s*(===|\.includes|\.startsWith|\.match)|catch\s*\{\s*\}/.test(text))
    .map(({ file }) => file)
  expect(wrong).toEqual([])
})

test("the process is ended in one place", async () => {
  const wrong = (await sources("src/**/*.ts"))
    .filter(({ text }) => text.includes("process.exit("))
    .map(({ file }) => file)
    .filter((file) => file !== "src/cli/cli.ts")
  expect(wrong).toEqual([])
})
