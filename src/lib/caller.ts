/** The person who started the process: under sudo the caller, not root. */

import { readFileSync, statSync } from "node:fs"
import { homedir } from "node:os"
import { errorCodeOf } from "./error-code.ts"

export type Caller = {
  home: string
  /** Owner for files written for this person; undefined if it is the process's own user. */
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
 * For users known to a directory service only, such as all users on macOS, where sudo keeps HOME. A directory counts as
 * the person's home only if it belongs to them.
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
