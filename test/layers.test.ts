/**
 * Folders may import only what the map in docs/ARCHITECTURE.md allows. Reads import lines as text, so `import type`
 * counts too.
 */

import { expect, test } from "bun:test"
import { join, relative, resolve } from "node:path"
import { CreateSandbox, UpdateSandbox } from "@bhatti/contract/sandbox"
import { commands } from "../src/cli/commands/index.ts"

const root = resolve(import.meta.dir, "../src")
const allowed: Record<string, string[]> = {
  lib: [],
  rules: [],
  store: [],
  core: ["rules", "store"],
  machine: ["rules"],
  network: ["rules"],
  disk: ["rules"],
  image: ["rules"],
  guest: ["rules"],
  gate: ["core", "store"],
  http: ["gate", "core", "store", "rules"],
  e2b: ["gate", "core", "store", "rules"],
  proxy: ["core", "rules"],
  mcp: [],
  cli: ["mcp"],
}
/** Files at the top of src compose the folders; the command line's operator commands reach the store through them. */
const compositionFiles = new Set([
  "client-main.ts",
  "daemon.ts",
  "downloads.ts",
  "backup.ts",
  "examine.ts",
  "init.ts",
  "recover.ts",
  "preflight.ts",
  "main.ts",
  "config.ts",
  "lock.ts",
  "host-warnings.ts",
  "image-pulls.ts",
  "surfaces.ts",
])

function folderOf(path: string): string {
  return relative(root, path).split("/")[0] ?? ""
}

test("imports follow the direction that the architecture gives", async () => {
  const wrong: string[] = []
  for (const file of new Bun.Glob("**/*.ts").scanSync(root)) {
    const from = folderOf(join(root, file))
    if (compositionFiles.has(from) || file.endsWith(".test.ts")) continue
    const text = await Bun.file(join(root, file)).text()
    for (const [, specifier] of text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)) {
      if (specifier === undefined) continue
      const target = resolve(join(root, file), "..", specifier)
      if (!target.startsWith(`${root}/`)) continue
      const to = folderOf(target)
      const isAllowed =
        to === from ||
        to === "lib" ||
        (from === "cli" && compositionFiles.has(to)) ||
        (allowed[from]?.includes(to) ?? false)
      if (!isAllowed) wrong.push(`${file} imports ${relative(root, target)}`)
    }
  }
  expect(wrong).toEqual([])
})

/**
 * No shapes of the API. A network policy and the configuration of an image are documents, which are stored as they are.
 */
const plainContract = new Set([
  ...["errors", "limits", "ids", "network", "image-config", "event-types", "guest", "lifetime", "permission"],
])

test("below the surfaces, no code knows the shapes of the API", async () => {
  const wrong: string[] = []
  for (const file of new Bun.Glob("{core,store,rules,gate}/**/*.ts").scanSync(root)) {
    if (file.endsWith(".test.ts")) continue
    const text = await Bun.file(join(root, file)).text()
    for (const [, module = ""] of text.matchAll(/(?:from|import)\s*\(?\s*"@bhatti\/contract\/([^"]+)"/g))
      if (!plainContract.has(module)) wrong.push(`${file} imports the contract's ${module}`)
  }
  expect(wrong).toEqual([])
})

/** Texts of `serve`, `init`, `restore`, `user` and `doctor`, which only an operator meets, at the daemon's host. */
const speaksToOperators = new Set([
  "disk/backups.ts",
  "machine/accelerator.ts",
  "machine/confinement.ts",
  "machine/preflight.ts",
  "network/preflight.ts",
  "proxy/front.ts",
  "store/belonging.ts",
  "store/vault.ts",
])

test("below the surfaces, no text names a command of the command line", async () => {
  const names = commands.map(({ name }) => name.split(" ")[0]).join("|")
  const command = new RegExp(`\\bbhatti (${names})\\b|hint: "[^"]* --[a-z]`)
  const folders = "core,store,rules,lib,guest,machine,network,disk,image,gate,proxy"
  expect(await codeLines(folders, command)).toEqual([])
})

test("below the surfaces, no text names a field, a header or an endpoint of the API", async () => {
  const shapes = { ...CreateSandbox.shape, ...UpdateSandbox.shape }
  const fields = Object.keys(shapes).filter((name) => name.includes("_"))
  const field = `[ (](${fields.join("|")})\\b|\\b(${fields.join("|")})[ )]`
  const endpoint = "\\b(GET|POST|PUT|PATCH|DELETE) /"
  const spoken = new RegExp(`["\`].*(${field}|${endpoint}|Retry-After|Authorization).*["\`]`)
  expect(await codeLines("core,store,rules,gate", spoken)).toEqual([])
})

async function codeLines(folders: string, pattern: RegExp): Promise<string[]> {
  const found: string[] = []
  for (const file of new Bun.Glob(`{${folders}}/**/*.ts`).scanSync(root)) {
    if (file.endsWith(".test.ts") || speaksToOperators.has(file)) continue
    const lines = (await Bun.file(join(root, file)).text()).split("\n")
    found.push(
      ...lines
        .filter((line) => pattern.test(line) && !/^\s*(\*|\/\/|\/\*)/.test(line))
        .map((line) => `${file}: ${line.trim()}`),
    )
  }
  return found
}

test("only the command line and its MCP server use the SDK, and the packages stand on their own", async () => {
  const wrong: string[] = []
  for (const file of new Bun.Glob("{contract,sdk,src}/**/*.ts").scanSync(resolve(root, ".."))) {
    if (file.endsWith(".test.ts") || file.includes("/dist/")) continue
    const text = await Bun.file(resolve(root, "..", file)).text()
    const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, path = ""]) => path)
    const isWrong = (path: string) =>
      file.startsWith("src/")
        ? path.startsWith("@bhatti/sdk/") && !/^src\/(cli|mcp)\//.test(file)
        : path.startsWith("../") || (file.startsWith("contract/") && path.startsWith("@bhatti/"))
    wrong.push(...imports.filter(isWrong).map((path) => `${file} imports ${path}`))
  }
  expect(wrong).toEqual([])
})

test("rules are pure: no waiting, no clock, no randomness, no host", async () => {
  const banned = /\basync\b|\bawait\b|\bDate\b|Math\.random|\bBun\b|node:/
  const wrong: string[] = []
  for (const file of new Bun.Glob("rules/**/*.ts").scanSync(root)) {
    if (file.endsWith(".test.ts")) continue
    if (banned.test(await Bun.file(join(root, file)).text())) wrong.push(file)
  }
  expect(wrong).toEqual([])
})

test("only the store has SQL, and only its adapter has what other databases do not understand", async () => {
  const sqliteOnly =
    /\b(rowid|json_\w+\(|data_version|pragma\b|sqlite_\w+|vacuum|strftime|julianday|unixepoch|ifnull|iif|group_concat|last_insert_rowid|changes\(\)|insert or|replace into|autoincrement|glob ')/i
  const wrong: string[] = []
  for (const file of new Bun.Glob("**/*.ts").scanSync(root)) {
    // Migrations are the history of the SQLite file.
    if (file.endsWith(".test.ts") || /^store\/(sqlite|migrations)\//.test(file)) continue
    const code = (await Bun.file(join(root, file)).text()).replaceAll(/^\s*(\/?\*|\/\/).*$/gm, "")
    const isWrong = file.startsWith("store/") ? sqliteOnly.test(code) : /"(kysely|bun:sqlite)/.test(code)
    if (isWrong || code.includes("bun:sqlite")) wrong.push(file)
  }
  expect(wrong).toEqual([])
})

test("a listing names whose things it lists", async () => {
  const wrong: string[] = []
  for (const file of new Bun.Glob("{store,core}/**/*.ts").scanSync(root)) {
    const text = await Bun.file(join(root, file)).text()
    for (const [name] of text.matchAll(/\b(list|find|get|read)(All|Every)\w*/g))
      wrong.push(`${file}: ${name}`)
  }
  expect(wrong).toEqual([])
})

test("no files import each other in a circle, not even types or late", async () => {
  const above = resolve(root, "..")
  const files = [...new Bun.Glob("{contract,sdk,src}/**/*.ts").scanSync(above)]
  const imports = new Map<string, string[]>()
  for (const file of files.filter((file) => !file.includes("node_modules/") && !file.endsWith(".test.ts"))) {
    const text = await Bun.file(join(above, file)).text()
    const paths = [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, path = ""]) => path)
    imports.set(
      file,
      paths.map((path) => fileOf(file, path)),
    )
  }
  expect(imports.size).toBeGreaterThan(200)
  expect(circlesOf(imports)).toEqual([])
})

/** The file that an import names, from the top of the repository. */
function fileOf(file: string, path: string): string {
  const inPackage = path.match(/^@bhatti\/(contract|sdk)\/(.+)$/)
  if (inPackage) return `${inPackage[1] === "sdk" ? "sdk/typescript" : "contract"}/${inPackage[2]}.ts`
  return path.startsWith(".") ? join(file, "..", path) : path
}

/** Groups of files that reach each other, by Tarjan's algorithm. */
function circlesOf(imports: ReadonlyMap<string, string[]>): string[][] {
  const found: string[][] = []
  const indexes = new Map<string, number>()
  const lowest = new Map<string, number>()
  const stack: string[] = []
  const visit = (file: string) => {
    const index = indexes.size
    indexes.set(file, index)
    stack.push(file)
    let low = index
    for (const next of imports.get(file) ?? []) {
      if (!imports.has(next)) continue
      if (!indexes.has(next)) visit(next)
      if (stack.includes(next)) low = Math.min(low, lowest.get(next) ?? indexes.get(next) ?? low)
    }
    lowest.set(file, low)
    if (low < index) return
    const circle = stack.splice(stack.indexOf(file))
    if (circle.length > 1 || imports.get(file)?.includes(file)) found.push(circle.sort())
  }
  for (const file of imports.keys()) if (!indexes.has(file)) visit(file)
  return found
}

/** The setting, the composition, and the command that prints a key. */
const namesOtherSurface = new Set(["daemon.ts", "surfaces.ts", "cli/commands/key-create.ts"])

test("only its own folder knows of the surface for e2b's SDKs", async () => {
  const wrong: string[] = []
  for (const file of new Bun.Glob("**/*.ts").scanSync(root)) {
    if (file.startsWith("e2b/") || namesOtherSurface.has(file)) continue
    if (/e2b(?!ig)/i.test((await Bun.file(join(root, file)).text()).replaceAll(/[0-9a-f]{12,}/g, "")))
      wrong.push(file)
  }
  expect(wrong).toEqual([])
})
