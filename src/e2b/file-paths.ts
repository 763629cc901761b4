/** Paths of e2b's clients: a relative one begins where the sandbox's commands begin, `~` is the user's home. */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { askGuest } from "../core/ask-guest.ts"
import { openFile } from "../core/files.ts"
import type { Caller } from "./caller.ts"

const workspace = "/workspace"
const ownUser = "lohar"
/** Images with more users than that are not met. */
const passwdBytesMax = 262_144

/** Returns the absolute path. Refuses a user that the sandbox does not have. */
export async function placeOf(caller: Caller, path: string): Promise<string> {
  const { core, account, sandbox, user, imageConfig } = caller
  if (path === "~" || path.startsWith("~/")) return posix.join(await homeOf(caller), path.slice(1))
  if (path.startsWith("~")) throw new AppError("invalid", `"${path}" names the home of another user`)
  if (user !== undefined) await askGuest(core, account, sandbox, { op: "findOwner", owner: user })
  const base = imageConfig ? posix.resolve("/", imageConfig.workdir) : workspace
  return posix.resolve(base, path)
}

async function homeOf({ core, account, sandbox, user, imageConfig }: Caller): Promise<string> {
  const [name = "root"] = (user ?? (imageConfig ? imageConfig.user || "root" : ownUser)).split(":")
  const opening = { op: "readFile", path: "/etc/passwd", limit: passwdBytesMax } as const
  const download = await openFile(core, account, sandbox, opening)
  download.result.catch(() => undefined)
  const pieces: Uint8Array[] = []
  for await (const piece of download.output) pieces.push(piece)
  for (const line of Buffer.concat(pieces).toString().split("\n")) {
    const [known, , uid, , , home] = line.split(":")
    if (known === name || uid === name) return posix.resolve("/", home ?? "")
  }
  throw new AppError("invalid", `no user "${name}"`, { reason: "no_user" })
}
