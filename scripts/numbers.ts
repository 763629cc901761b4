/**
 * Numbers of our own code: how large its files are, how much is commented and tested, and how often it does what
 * CONTRIBUTING.md forbids. `bun run numbers` looks at the working tree, `bun run numbers REVISION` at a commit.
 */

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

type Source = { path: string; text: string }
type Language = {
  isOurs: RegExp
  isTest: RegExp
  sleep: RegExp
  errorText: RegExp
  any: RegExp
}

export const languages: Record<"TypeScript" | "Go", Language> = {
  TypeScript: {
    isOurs: /^(contract|sdk|src|test)\/.*(?<!\.d)\.ts$/,
    isTest: /^test\/|\.test\.ts$/,
    sleep: /\bBun\.sleep\(|\bsetTimeout\(\w+, /g,
    errorText: /(\.message|\(message\))\s*(===|\.(includes|startsWith|match)\()/g,
    any: /(: |<|\bas )any(?=[[\],;>)=]|\s*[={]|$)/gm,
  },
  Go: {
    isOurs: /^(agent|jail|unpack)\/.*\.go$/,
    isTest: /_test\.go$/,
    sleep: /\btime\.Sleep\(/g,
    errorText: /strings\.\w+\(\w+\.Error\(\)|\.Error\(\) ==/g,
    any: /\binterface\{\}/g,
  },
}

/** The rows of the table, by what they count. */
export function measure(sources: Source[], language: Language): Record<string, string> {
  const ours = sources.filter(({ path }) => language.isOurs.test(path))
  const tests = ours.filter(({ path }) => language.isTest.test(path))
  const files = ours.filter(({ path }) => !language.isTest.test(path))
  const sizes = files.map(({ text }) => linesOf(text).length).sort((one, other) => one - other)
  const at = (share: number) => sizes[Math.max(0, Math.ceil(sizes.length * share) - 1)] ?? 0
  const lines = sum(sizes)
  const count = (all: Source[], pattern: RegExp) =>
    sum(all.map(({ text }) => [...text.matchAll(pattern)].length))
  const percent = (part: number, of: number) => `${((100 * part) / Math.max(1, of)).toFixed(1)} %`
  return {
    "files / lines": `${files.length} / ${lines}`,
    "median / p90 / max": `${at(0.5)} / ${at(0.9)} / ${at(1)}`,
    "files > 400": `${sizes.filter((size) => size > 400).length}`,
    "opens with a comment": percent(
      files.filter(({ text }) => /^(#!.*\n)?\/[/*]/.test(text)).length,
      files.length,
    ),
    "comment share": percent(sum(files.map(({ text }) => linesOf(text).filter(isComment).length)), lines),
    "test lines per line": (sum(tests.map(({ text }) => linesOf(text).length)) / Math.max(1, lines)).toFixed(
      2,
    ),
    "sleeps in tests": `${count(tests, language.sleep)}`,
    "decisions by error text": `${count(files, language.errorText)}`,
    "TODO / any": `${count(files, /\b(TODO|FIXME)\b/g)} / ${count(files, language.any)}`,
  }
}

/** Methods of core's ports to the host, by port; handles, such as a stream's, and drafts are ports of their own. */
export function portMethods(sources: Source[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { path, text } of sources) {
    if (!/^src\/core\/host(\/|\.ts$)/.test(path)) continue
    let port = ""
    for (const line of linesOf(text)) {
      port = /^(?:export )?(?:interface|type) (\w+)/.exec(line)?.[1] ?? port
      if (/^ {2}\w+(<.*>)?\(/.test(line)) counts.set(port, (counts.get(port) ?? 0) + 1)
    }
  }
  return counts
}

function linesOf(text: string): string[] {
  return text.trimEnd().split("\n")
}

function isComment(line: string): boolean {
  return /^\s*(\/\/|\/\*|\*)/.test(line)
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

function run(command: string[], options: { cwd: string }): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, options)
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`)
  return stdout.toString()
}

/** With files that git does not know yet, since they are about to be. */
async function read(root: string, paths: string): Promise<Source[]> {
  const isOurs = (path: string) => Object.values(languages).some((language) => language.isOurs.test(path))
  const files = paths.split("\n").filter(isOurs)
  const there = await Promise.all(files.map((path) => Bun.file(join(root, path)).exists()))
  const kept = files.filter((_, index) => there[index])
  return Promise.all(kept.map(async (path) => ({ path, text: await Bun.file(join(root, path)).text() })))
}

async function sourcesOf(root: string, revision: string | undefined): Promise<Source[]> {
  if (revision === undefined)
    return read(root, run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root }))
  if (Bun.spawnSync(["git", "cat-file", "-e", `${revision}^{commit}`], { cwd: root }).exitCode !== 0) {
    const isShallow = run(["git", "rev-parse", "--is-shallow-repository"], { cwd: root }).trim() === "true"
    const hint = isShallow ? ": it is shallow; git fetch --unshallow gets the rest" : ""
    throw new Error(`this clone has no commit ${revision}${hint}`)
  }
  const directory = mkdtempSync(join(tmpdir(), "bhatti-numbers-"))
  try {
    run(["git", "archive", `--output=${directory}/all.tar`, revision], { cwd: root })
    run(["tar", "-xf", "all.tar"], { cwd: directory })
    return await read(directory, run(["git", "ls-tree", "-r", "--name-only", revision], { cwd: root }))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

async function main(): Promise<void> {
  const sources = await sourcesOf(join(import.meta.dir, ".."), process.argv[2])
  const [typescript, go] = [measure(sources, languages.TypeScript), measure(sources, languages.Go)]
  console.log("| | TypeScript | Go |\n|---|---|---|")
  for (const row of Object.keys(typescript)) console.log(`| ${row} | ${typescript[row]} | ${go[row]} |`)
  const ports = portMethods(sources)
  const each = [...ports].map(([port, count]) => `${port} ${count}`).join(", ")
  console.log(`\nMethods of core's ports to the host: ${sum([...ports.values()])} (${each})`)
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    console.error(`error: ${error.message}`)
    process.exitCode = 1
  })
}
