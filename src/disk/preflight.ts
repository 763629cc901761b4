/** Checks the data directory: who may read it, and how much room it has. */

import { stat, statfs } from "node:fs/promises"
import { join } from "node:path"
import { errorCodeOf } from "../lib/error-code.ts"
import { whenMissing } from "../lib/missing-files.ts"
import { type Check, fail, ok, sizeInWords, warn } from "../lib/preflight.ts"

/** Files that hold keys. */
const privateFiles = ["age.key", "bhatti.db"]

export type DirectoryFacts = Exclude<Awaited<ReturnType<typeof lookAtDataDir>>, string>

/** Returns "closed" if only the operator may read it. */
export async function lookAtDataDir(path: string) {
  try {
    const { mode, uid } = await stat(path)
    const { bavail, bsize } = await statfs(path)
    const found = await Promise.all(
      privateFiles.map(async (name) => ({
        name,
        mode: (await stat(join(path, name)).catch(whenMissing))?.mode,
      })),
    )
    const files = found.flatMap(({ name, mode }) =>
      mode === undefined ? [] : [{ name, mode: mode & 0o777 }],
    )
    return { mode: mode & 0o777, uid, freeMib: Math.floor((bavail * bsize) / 1024 / 1024), files }
  } catch (error) {
    if (errorCodeOf(error) === "EACCES") return "closed" as const
    return whenMissing(error) ?? ("absent" as const)
  }
}

export function checkAccess(path: string, { mode, uid, files }: DirectoryFacts, isRoot: boolean): Check[] {
  const isOpen = (mode & 0o077) !== 0 || (isRoot && uid !== 0)
  const fix = isRoot ? `sudo chown root ${path} && sudo chmod 700 ${path}` : `chmod 700 ${path}`
  return [
    isOpen ? fail("data", `${path} is open to others`, fix) : ok("data", `${path} is closed to others`),
    ...files
      .filter((file) => (file.mode & 0o077) !== 0)
      .map(({ name, mode: open }) =>
        fail(
          "data",
          `${path}/${name} is open to others (${open.toString(8)})`,
          `sudo chmod 600 ${path}/${name}`,
        ),
      ),
  ]
}

export function checkRoom(path: string, freeMib: number, reserveMib: number): Check {
  const text = `${sizeInWords(freeMib)} free at ${path}`
  const fix = "make room there, or move the data directory"
  if (freeMib <= reserveMib)
    return fail(
      "space",
      `${text}; ${sizeInWords(reserveMib)} stay reserved, so no sandbox can be created`,
      fix,
    )
  return freeMib < 4 * reserveMib ? warn("space", text, fix) : ok("space", text)
}
