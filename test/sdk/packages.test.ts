/**
 * The packages as somebody installs them: packed, installed in an empty project outside the checkout, compiled there by
 * strict TypeScript, and run against the real application on a fake host.
 */

import { afterAll, beforeAll, expect, test } from "bun:test"
import { cp, mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Daemon } from "../cli/daemon.ts"

const root = resolve(import.meta.dir, "../..")
const tools = join(root, "node_modules/.bin")
const undo = new AsyncDisposableStack()
let project: string

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "bhatti-sdk-"))
  undo.defer(() => rm(project, { recursive: true, force: true }))
  await run([process.execPath, join(root, "scripts/packages.ts"), "--out", join(project, "packed")])
  await cp(join(import.meta.dir, "project"), project, { recursive: true })
  await Bun.write(join(project, "examples.ts"), await examples())
  await Bun.write(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }))
  const packed = (await readdir(join(project, "packed"))).map((name) => `./packed/${name}`)
  await run(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", ...packed])
  await compile({})
}, 120_000)
afterAll(() => undo.disposeAsync())

async function run(command: string[], env: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn(command, {
    cwd: project,
    env: { ...process.env, ...env },
    stdin: "ignore",
    stderr: "pipe",
  })
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${out}${err}`)
  return out
}

/** The strictest that TypeScript has, with the types of the packages checked too. */
async function compile(options: Record<string, unknown>): Promise<void> {
  const compilerOptions = {
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
    target: "ES2022",
    module: "NodeNext",
    types: [],
    ...options,
  }
  await Bun.write(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }))
  await run([join(tools, "tsc"), "-p", "."])
}

/** The README's TypeScript, but for its options of other packages. */
async function examples(): Promise<string> {
  const text = await Bun.file(join(root, "sdk/typescript/README.md")).text()
  const blocks = [...text.matchAll(/```ts\n(.*?)```/gs)].map(([, block = ""]) => block)
  const own = blocks.filter((block) => !block.includes("dispatcher"))
  const isImport = (line: string) => line.startsWith("import ")
  const lines = own.map((block) => block.split("\n"))
  return [
    ...new Set(lines.flat().filter(isImport)),
    'import type { Client } from "@bhatti/sdk"',
    "declare const process: { env: Record<string, string | undefined> }",
    "declare const bhatti: Client, id: string",
    ...lines.map((block) => `{\n${block.filter((line) => !isImport(line)).join("\n")}\n}`),
  ].join("\n")
}

/** Runs the calls as a user of its own, so that each runtime finds nothing of another's. */
async function callsIn(command: string[], ...more: string[]): Promise<string[]> {
  await using daemon = await Daemon.start()
  daemon.host.sessionProgram = "keys"
  return JSON.parse(await run([...command, join(project, "program.js"), daemon.url, daemon.key, ...more]))
}

test("a package has its compiled modules with types, its sources, a README and the licence, and no tests", async () => {
  for (const name of ["contract", "sdk"]) {
    const files = await readdir(join(project, "node_modules/@bhatti", name), { recursive: true })
    expect(files).toEqual(expect.arrayContaining(["LICENSE", "README.md", "package.json"]))
    expect(files).toEqual(expect.arrayContaining([name === "sdk" ? "dist/index.d.ts" : "dist/api.d.ts"]))
    expect(files.filter((file) => /test|tsconfig|tsbuildinfo/.test(file))).toEqual([])
  }
})

test("the calls succeed in Bun", async () => {
  expect((await callsIn([process.execPath])).length).toBeGreaterThan(30)
})

test("the README's example is the package's", async () => {
  const block = /^import \{ connect \}.*?^```/ms
  const [own, ofTheProject] = await Promise.all(
    ["sdk/typescript/README.md", "README.md"].map((path) => Bun.file(join(root, path)).text()),
  )
  expect(own?.match(block)?.[0]).toContain("await bhatti.exec(")
  expect(ofTheProject?.match(block)?.[0]).toBe(own?.match(block)?.[0])
})

const nodeMajor = Number(
  (await Bun.$`node --version`.nothrow().quiet()).stdout.toString().match(/\d+/)?.[0] ?? "0",
)
test.skipIf(nodeMajor < 20)(
  "the calls succeed in the Node.js that is there, from version 20 on",
  async () => {
    const flags = nodeMajor < 22 ? ["--experimental-websocket"] : []
    expect((await callsIn(["node", ...flags])).length).toBeGreaterThan(30)
  },
)
