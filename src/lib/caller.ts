/** The person behind the process: under sudo the one who called it, not root. */

import { readFileSync } from "node:fs"
import { homedir } from "node:os"

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
  return callerHome ? { home: callerHome, owner: { uid: Number(uid), gid: Number(gid) } } : own
}
