/** The person behind the process: under sudo the one who called it, not root. */

import { readFileSync, statSync } from "node:fs"
import { homedir } from "node:os"
import { errorCodeOf } from "./error-code.ts"

export type Caller = {
  home: string
  /** Whose the files written for this person must be; nothing when they are the process's own anyway. */
  owner: { uid: number; gid: number } | undefined
}

export function findCaller(environment: Record<string, string | undefined>): Caller {
  const { SUDO_USER: sudoUser, HOME: home } = environment
  const own = { home: home || homedir(), owner: undefined }
  if (process.getuid?.() !== 0 || !sudoUser || sudoUser === "root") return own
  const line = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((one) => one.startsWith(`${sudoUser}:`))
  const [, , uid, gid, , callerHome] = line?.split(":") ?? []
  if (callerHome) return { home: callerHome, owner: { uid: Number(uid), gid: Number(gid) } }
  return callerElsewhere(environment, sudoUser) ?? own
}

/**
 * Of whom a directory service knows and no file, as of all people on macOS, where sudo keeps HOME. A directory is taken for
 * the person's home only if it is theirs.
 */
function callerElsewhere(
  { SUDO_UID: uidText, SUDO_GID: gidText, HOME: home }: Record<string, string | undefined>,
  sudoUser: string,
): Caller | undefined {
  if (!isNumber(uidText) || !isNumber(gidText)) return undefined
  const owner = { uid: Number(uidText), gid: Number(gidText) }
  const found = [home, `/Users/${sudoUser}`, `/home/${sudoUser}`].find(
    (path) => path && ownerOf(path) === owner.uid,
  )
  return found === undefined ? undefined : { home: found, owner }
}

function isNumber(text: string | undefined): boolean {
  return /^\d+$/.test(text ?? "")
}

function ownerOf(path: string): number | undefined {
  try {
    return statSync(path).uid
  } catch (error) {
    if (errorCodeOf(error) === undefined) throw error
    return undefined
  }
}
