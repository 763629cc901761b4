/** A build of an earlier revision of this repository, in a directory of its own. */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { dirname, join, resolve } from "node:path"

const root = resolve(import.meta.dir, "../..")
const buildDeadlineMs = 600_000

export type FormerBuild = Disposable & { binary: string }

/** Returns why it cannot be built, or the build. */
export function buildFormer(revision: string): FormerBuild | { reason: string } {
  const known = Bun.spawnSync(["git", "-C", root, "rev-parse", "--verify", "--quiet", `${revision}^{commit}`])
  if (known.exitCode !== 0) return { reason: `this checkout has no revision ${revision}` }
  const directory = mkdtempSync("/tmp/bhatti-former-")
  const remove = () => rmSync(directory, { recursive: true, force: true })
  try {
    run(["sh", "-c", `git -C ${root} archive ${revision} | tar -x -C ${directory}`], root)
    linkModules(directory)
    run([process.execPath, "run", "build"], directory)
  } catch (error) {
    remove()
    throw error
  }
  return { binary: join(directory, "dist/bhatti"), [Symbol.dispose]: remove }
}

/** The repository's own packages come from the revision, all others from this checkout. */
function linkModules(directory: string): void {
  const modules = join(directory, "node_modules")
  mkdirSync(join(modules, "@bhatti"), { recursive: true })
  for (const name of readdirSync(join(root, "node_modules")))
    if (name !== "@bhatti") symlinkSync(join(root, "node_modules", name), join(modules, name))
  symlinkSync("../../contract", join(modules, "@bhatti/contract"))
  symlinkSync("../../sdk/typescript", join(modules, "@bhatti/sdk"))
}

function run(command: string[], cwd: string): void {
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
    cwd,
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}` },
    timeout: buildDeadlineMs,
  })
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stdout}${stderr}`)
}
