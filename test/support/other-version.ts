/** The same sources under another version number, for tests of updates. */

import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dir, "../..")

export async function buildOtherVersion(version: string): Promise<{ binary: string; remove(): void }> {
  const directory = mkdtempSync("/tmp/bhatti-other-")
  const built = ["lohar", "jail", "unpack", "zygote"].map((name) => join("dist", name))
  for (const name of ["src", "images", "scripts", ...built])
    cpSync(join(root, name), join(directory, name), { recursive: true })
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
  const about = await Bun.file(join(root, "package.json")).json()
  await Bun.write(join(directory, "package.json"), JSON.stringify({ ...about, version }))
  const binary = join(directory, "bhatti")
  const result = Bun.spawnSync([process.execPath, "build", "--compile", "src/main.ts", "--outfile", binary], {
    cwd: directory,
  })
  const remove = () => rmSync(directory, { recursive: true })
  if (result.exitCode !== 0) {
    remove()
    throw new Error(result.stderr.toString())
  }
  return { binary, remove }
}
