/** Checks the data directory: who may read it, and how much room it has. */

import { stat, statfs } from "node:fs/promises"
import { join } from "node:path"
import { errorCodeOf } from "../lib/error-code.ts"
import { whenMissing } from "../lib/missing-files.ts"
import { type Check, fail, ok, sizeInWords, warn } from "../lib/preflight.ts"

/** Files that hold keys. */
const database = "bhatti.db"
const privateFiles = ["age.key", database]

export type DirectoryFacts = Exclude<Awaited<ReturnType<typeof lookAtDataDir>>, string>

/** Returns "closed" if only the operator may read it. */
export async function lookAtDataDir(path: string) {
  try {
    const { mode, uid } = await stat(path)
    const { bavail, bsize } = await statfs(path)
    const found = await Promise.all(
      privateFiles.map(async (name) => ({ name, file: await stat(join(path, name)).catch(whenMissing) })),
    )
    const files = found.flatMap(({ name, file }) => (file ? [{ name, mode: file.mode & 0o777 }] : []))
    // The daemon has made its database itself.
    const daemonUid = found.find(({ name }) => name === database)?.file?.uid
    const freeMib = Math.floor((bavail * bsize) / 1024 / 1024)
    return { mode: mode & 0o777, uid, daemonUid, freeMib, files }
  } catch (error) {
    if (errorCodeOf(error) === "EACCES") return "closed" as const
    return whenMissing(error) ?? ("absent" as const)
  }
}

/** Returns true if the directory and its daemon are those of a user other than root. */
export function isUsersDaemon({ uid, daemonUid }: Pick<DirectoryFacts, "uid" | "daemonUid">): boolean {
  return uid !== 0 && daemonUid === uid
}

export function checkAccess(
  path: string,
  { mode, uid, daemonUid, files }: DirectoryFacts,
  isRoot: boolean,
): Check[] {
  const isOfUser = isUsersDaemon({ uid, daemonUid })
  const isOpen = (mode & 0o077) !== 0 || (isRoot && uid !== 0 && !isOfUser)
  const close = `chmod 700 ${path}`
  const fix = !isRoot ? close : isOfUser ? `sudo ${close}` : `sudo chown root ${path} && sudo ${close}`
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
