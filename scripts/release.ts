/**
 * Makes what other machines install, in `dist/release`: the command line for each platform, the server's archive, the
 * npm packages, SHA256SUMS and the script `install`. Bun's programs for other platforms come from its npm packages,
 * checked against package-lock.json.
 *
 *     bun run release [--out DIR] [--only NAME,...] [--quick] [--from URL]
 *
 * --only  some of linux-x64, linux-arm64, darwin-x64, darwin-arm64, server, packages
 * --quick compresses less
 * --from  the address that the folder will have, which the script `install` is then for
 */

import { createHash } from "node:crypto"
import { chmod, copyFile, mkdir, mkdtemp, rename, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { compile, currentCommit } from "./compile.ts"
import { checkSignature, readMachO, signAdHoc } from "./mach-o.ts"

const root = join(import.meta.dir, "..")
const serverName = "bhatti-server-linux-x64"

/** Its name, in Bun's own terms, and the npm package of its Bun. */
const platforms = {
  "linux-x64": { target: "bun-linux-x64", package: "@oven/bun-linux-x64" },
  "linux-arm64": { target: "bun-linux-arm64", package: "@oven/bun-linux-aarch64" },
  "darwin-x64": { target: "bun-darwin-x64", package: "@oven/bun-darwin-x64" },
  "darwin-arm64": { target: "bun-darwin-arm64", package: "@oven/bun-darwin-aarch64" },
} as const
type Platform = keyof typeof platforms
const others = ["server", "packages"]

const { values } = parseArgs({
  options: {
    out: { type: "string", default: join(root, "dist/release") },
    only: { type: "string", default: [...Object.keys(platforms), ...others].join(",") },
    quick: { type: "boolean", default: false },
    from: { type: "string", default: "" },
  },
})

async function main(): Promise<void> {
  const wanted = values.only.split(",")
  const unknown = wanted.find((name) => !Object.hasOwn(platforms, name) && !others.includes(name))
  if (unknown !== undefined) throw new Error(`there is no ${unknown}`)
  const making = `${values.out}.making`
  await rm(making, { recursive: true, force: true })
  await mkdir(making, { recursive: true })
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(making, { recursive: true, force: true }))
  const sums: string[] = []
  for (const name of wanted) {
    const startMs = performance.now()
    if (name === "server") sums.push(...(await makeServer(making)))
    else if (name === "packages") sums.push(...(await makePackages(making)))
    else sums.push(...(await makeClient(name as Platform, making)))
    console.log(`${name} (${((performance.now() - startMs) / 1000).toFixed(1)} s)`)
  }
  await Bun.write(join(making, "SHA256SUMS"), `${sums.join("\n")}\n`)
  const script = await Bun.file(join(root, "scripts/install-client.sh")).text()
  await Bun.write(
    join(making, "install"),
    script.replace("\nfiles=\n", `\nfiles='${addressOf(values.from)}'\n`),
  )
  await rm(values.out, { recursive: true, force: true })
  await rename(making, values.out)
}

/** It becomes a word of a shell script. */
function addressOf(from: string): string {
  if (from === "" || /^https?:\/\/[A-Za-z0-9.:/_~-]+$/.test(from)) return from.replace(/\/+$/, "")
  throw new Error(`${from} is no address of a folder`)
}

/** Its lines of SHA256SUMS: of the program, and of the file that it is packed in. */
async function makeClient(platform: Platform, directory: string): Promise<string[]> {
  const name = `bhatti-${platform}`
  const file = join(directory, name)
  await using undo = new AsyncDisposableStack()
  const isOwn = platform === "linux-x64" && process.platform === "linux" && process.arch === "x64"
  const runtime = isOwn ? undefined : await fetchRuntime(platforms[platform].package, undo)
  await compile({
    entrypoint: join(root, "src/client-main.ts"),
    outfile: file,
    commit: currentCommit(root),
    ...(runtime !== undefined && { foreign: { target: platforms[platform].target, runtime } }),
  })
  if (platform.startsWith("darwin-")) await signIfNeeded(file, platform)
  const program = await Bun.file(file).bytes()
  const packed = Bun.gzipSync(program, { level: values.quick ? 1 : 9, library: "libdeflate" })
  await Bun.write(`${file}.gz`, packed)
  await rm(file)
  return [`${sha256(program)}  ${name}`, `${sha256(packed)}  ${name}.gz`]
}

/** The program inside the package; gone with `undo`. */
async function fetchRuntime(name: string, undo: AsyncDisposableStack): Promise<string> {
  const lock = await Bun.file(join(root, "package-lock.json")).json()
  const { version, integrity } = lock.packages[`node_modules/${name}`]
  const directory = await mkdtemp(join(tmpdir(), "bhatti-runtime-"))
  undo.defer(() => rm(directory, { recursive: true, force: true }))
  const packing = ["npm", "pack", `${name}@${version}`, "--prefer-offline", "--pack-destination", directory]
  await run([...packing, "--silent"], directory)
  const [archive = ""] = [...new Bun.Glob("*.tgz").scanSync(directory)]
  const bytes = await Bun.file(join(directory, archive)).bytes()
  const digest = `sha512-${createHash("sha512").update(bytes).digest("base64")}`
  if (digest !== integrity)
    throw new Error(`${name}@${version} is not what package-lock.json says: ${digest}`)
  await run(["tar", "-xzf", archive, "package/bin/bun"], directory)
  return join(directory, "package/bin/bun")
}

async function signIfNeeded(file: string, platform: Platform): Promise<void> {
  const program = Buffer.from(await Bun.file(file).bytes())
  const { cpu } = readMachO(program)
  if (`darwin-${cpu}` !== platform) throw new Error(`${platform} was made for ${cpu}`)
  if (checkSignature(program) === undefined) return
  const signed = signAdHoc(program, "bhatti")
  const problem = checkSignature(signed)
  if (problem !== undefined) throw new Error(`${platform}: ${problem}`)
  await Bun.write(file, signed)
  await chmod(file, 0o755)
}

async function makeServer(directory: string): Promise<string[]> {
  await run([process.execPath, join(root, "scripts/build.ts")], root)
  const parts = await mkdtemp(join(tmpdir(), "bhatti-server-"))
  await using undo = new AsyncDisposableStack()
  undo.defer(() => rm(parts, { recursive: true, force: true }))
  const top = join(parts, "bhatti-server")
  await mkdir(join(top, "scripts"), { recursive: true })
  for (const [from, to] of [
    ["dist/bhatti", "bhatti"],
    ["install.sh", "install.sh"],
    ["scripts/setup.sh", "scripts/setup.sh"],
    ["scripts/clients.sh", "scripts/clients.sh"],
    ["LICENSE", "LICENSE"],
  ] as const)
    await copyFile(join(root, from), join(top, to))
  const name = `${serverName}.tar.gz`
  const same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]
  const packer = `gzip -n ${values.quick ? "-1" : "-9"}`
  await run(["tar", "-c", ...same, "-I", packer, "-f", join(directory, name), "bhatti-server"], parts)
  return [`${sha256(await Bun.file(join(directory, name)).bytes())}  ${name}`]
}

async function makePackages(directory: string): Promise<string[]> {
  await run([process.execPath, join(root, "scripts/packages.ts"), "--out", directory], root)
  const names = [...new Bun.Glob("*.tgz").scanSync(directory)].sort()
  return Promise.all(
    names.map(async (name) => `${sha256(await Bun.file(join(directory, name)).bytes())}  ${name}`),
  )
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex")
}

async function run(command: string[], cwd: string): Promise<void> {
  const child = Bun.spawn(command, { cwd, stdin: "ignore", stdout: "ignore", stderr: "inherit" })
  if ((await child.exited) !== 0) throw new Error(`${command.slice(0, 3).join(" ")} failed`)
}

await main()
