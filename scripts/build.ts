/**
 * Builds `dist/lohar` (the guest agent), `dist/jail` (the launcher of QEMU), `dist/unpack` (the unpacker of images),
 * `dist/zygote` (the library that forks QEMU) and `dist/bhatti` (everything else, those inside) and says what took how
 * long. Does nothing when no source has changed since the last build; `--force` builds anyway.
 */
import { createHash } from "node:crypto"
import { mkdir, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { compile, currentCommit } from "./compile.ts"

const root = join(import.meta.dir, "..")
const dist = join(root, "dist")
const agentFile = join(dist, "lohar")
const jailFile = join(dist, "jail")
const unpackFile = join(dist, "unpack")
const zygoteFile = join(dist, "zygote")
const binaryFile = join(dist, "bhatti")
const stampFile = join(dist, "build.json")
const sources = [
  "agent/**/*",
  "contract/*.ts",
  "images/**/*",
  "jail/**/*",
  "sdk/typescript/*.ts",
  "src/**/*",
  "zygote/*",
  "scripts/build.ts",
  "scripts/compile.ts",
  "scripts/install-client.sh",
  "package*.json",
  "tsconfig.json",
  "unpack/**/*",
]

async function main(): Promise<void> {
  const commit = currentCommit(root)
  const stamp = JSON.stringify({ inputs: await hashOfSources(), commit, bun: Bun.version })
  if (!process.argv.includes("--force") && (await isBuilt(stamp))) {
    console.log("dist/bhatti is up to date")
    return
  }
  await rm(stampFile, { force: true })
  await mkdir(dist, { recursive: true })
  await timed("dist/lohar", () => buildGo("agent", agentFile))
  await timed("dist/jail", () => buildGo("jail", jailFile))
  await timed("dist/unpack", () => buildGo("unpack", unpackFile))
  await timed("dist/zygote", buildLibrary)
  await timed("dist/bhatti", () =>
    compile({ entrypoint: join(root, "src/main.ts"), outfile: binaryFile, commit }),
  )
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

/** Links nothing of the host but the C library: QEMU's process has the rest that it needs. */
async function buildLibrary(): Promise<void> {
  const files = [...new Bun.Glob("*.c").scanSync({ cwd: join(root, "zygote") })].sort()
  const strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wl,-z,defs,-z,now"]
  await run(
    ["gcc", ...strict, "-O2", "-g0", "-fPIC", "-shared", "-s", "-o", `${zygoteFile}.part`, ...files],
    { cwd: join(root, "zygote"), env: { ...process.env, LC_ALL: "C" } },
  )
  await rename(`${zygoteFile}.part`, zygoteFile)
}

async function isBuilt(stamp: string): Promise<boolean> {
  for (const file of [stampFile, agentFile, jailFile, zygoteFile, binaryFile])
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
