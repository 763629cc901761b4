/**
 * Builds `dist/lohar` (the guest agent), `dist/jail` (the launcher of QEMU) and `dist/bhatti` (everything else, the two
 * inside) and says what took how long. Does nothing when no source has changed since the last build; `--force` builds anyway.
 */
import { createHash } from "node:crypto"
import { mkdir, rename, rm } from "node:fs/promises"
import { join } from "node:path"

const root = join(import.meta.dir, "..")
const dist = join(root, "dist")
const agentFile = join(dist, "lohar")
const jailFile = join(dist, "jail")
const binaryFile = join(dist, "bhatti")
const stampFile = join(dist, "build.json")
const sources = [
  "agent/**/*",
  "images/**/*",
  "jail/**/*",
  "src/**/*",
  "scripts/build.ts",
  "package*.json",
  "tsconfig.json",
]

async function main(): Promise<void> {
  const commit = currentCommit()
  const stamp = JSON.stringify({ inputs: await hashOfSources(), commit, bun: Bun.version })
  if (!process.argv.includes("--force") && (await isBuilt(stamp))) {
    console.log("dist/bhatti is up to date")
    return
  }
  await rm(stampFile, { force: true })
  await mkdir(dist, { recursive: true })
  await timed("dist/lohar", () => buildGo("agent", agentFile))
  await timed("dist/jail", () => buildGo("jail", jailFile))
  await timed("dist/bhatti", () => buildBinary(commit))
  await Bun.write(stampFile, stamp)
}

async function buildGo(folder: string, file: string): Promise<void> {
  await run(
    // Without -buildvcs=false Go asks git, which refuses to answer root in a checkout that is somebody else's.
    ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", `${file}.part`, "."],
    { cwd: join(root, folder), env: { ...process.env, CGO_ENABLED: "0" } },
  )
  await rename(`${file}.part`, file)
}

/**
 * Chosen by measuring: `splitting` leaves the daemon's code unread when the CLI starts (`version` 32 -> 5 ms), `bytecode`
 * halves what is left for other commands. Source maps cost nothing until an error prints its place; names stay for it.
 */
async function buildBinary(commit: string | undefined): Promise<void> {
  const beside = join(dist, ".making")
  await rm(beside, { recursive: true, force: true })
  const result = await Bun.build({
    entrypoints: [join(root, "src/main.ts")],
    target: "bun",
    format: "esm",
    splitting: true,
    bytecode: true,
    minify: { whitespace: true, syntax: true, identifiers: false },
    sourcemap: "linked",
    define: { "process.env.BHATTI_COMMIT": JSON.stringify(commit ?? "") },
    // A command must not change its behaviour by files that happen to lie in the directory it is started from.
    compile: { outfile: join(beside, "bhatti"), autoloadDotenv: false, autoloadBunfig: false },
  })
  if (!result.success) throw new AggregateError(result.logs, "bundle")
  // By rename: the running binary cannot be written to.
  await rename(join(beside, "bhatti"), binaryFile)
  await rm(beside, { recursive: true, force: true })
}

async function isBuilt(stamp: string): Promise<boolean> {
  for (const file of [stampFile, agentFile, jailFile, binaryFile])
    if (!(await Bun.file(file).exists())) return false
  return (await Bun.file(stampFile).text()) === stamp
}

async function hashOfSources(): Promise<string> {
  const paths = sources.flatMap((pattern) => [...new Bun.Glob(pattern).scanSync({ cwd: root, dot: true })])
  const hash = createHash("sha256")
  for (const path of paths.filter((path) => !isTest(path)).sort()) {
    hash.update(`${path}\n`).update(await Bun.file(join(root, path)).bytes())
  }
  return hash.digest("hex")
}

function isTest(path: string): boolean {
  return path.endsWith(".test.ts") || path.endsWith("_test.go")
}

/** Nothing outside a git checkout, or without git. */
function currentCommit(): string | undefined {
  if (Bun.which("git") === null) return undefined
  const { exitCode, stdout } = Bun.spawnSync(
    ["git", "-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"],
    { cwd: root, stderr: "ignore" },
  )
  return exitCode === 0 ? stdout.toString().trim() : undefined
}

async function run(
  command: string[],
  options: { cwd: string; env: Record<string, string | undefined> },
): Promise<void> {
  const child = Bun.spawn(command, { ...options, stdin: "ignore", stdout: "inherit", stderr: "inherit" })
  if ((await child.exited) !== 0) throw new Error(`${command.slice(0, 2).join(" ")} failed`)
}

async function timed(what: string, work: () => Promise<void>): Promise<void> {
  const start = performance.now()
  await work()
  console.log(`${what} (${((performance.now() - start) / 1000).toFixed(1)} s)`)
}

await main()
