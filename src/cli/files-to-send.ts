/** Reads the local files for `bhatti create`: the init script and the files the sandbox starts with. */

import { stat } from "node:fs/promises"
import { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { localStep } from "./copy/local-file.ts"
import { bytesText } from "./words.ts"
import { WrongUsage } from "./wrong-usage.ts"

export type FileToSend = { guest_path: string; content: string; mode: string }

/** Contents travel in base64 inside the request; the rest of the request needs some space too. */
const contentBytesMax = limits.requestBodyBytesMax - 128 * 1024

export async function readInitScript(path: string): Promise<string> {
  return Buffer.from(await readLocal(path)).toString()
}

export async function readFilesToSend(
  given: readonly string[],
  options: { sandbox: string },
): Promise<FileToSend[]> {
  const files: FileToSend[] = []
  let contentBytes = 0
  for (const text of given) {
    const { local, guest } = splitPair(text)
    const { size, mode } = await localStat(local)
    contentBytes += Math.ceil(size / 3) * 4
    if (contentBytes > contentBytesMax || files.length >= limits.createFilesMax)
      throw new AppError(
        "too_large",
        `--file takes up to ${limits.createFilesMax} files of together ${bytesText((contentBytesMax / 4) * 3)}`,
        { hint: `create the sandbox, then: bhatti cp ${local} ${options.sandbox}:${guest}` },
      )
    const content = Buffer.from(await readLocal(local)).toString("base64")
    files.push({ guest_path: guest, content, mode: `0${(mode & 0o777).toString(8).padStart(3, "0")}` })
  }
  return files
}

/** The guest's path follows the last colon. */
function splitPair(text: string): { local: string; guest: string } {
  const colon = text.lastIndexOf(":")
  const [local, guest] = [text.slice(0, colon), text.slice(colon + 1)]
  if (colon > 0 && guest !== "") return { local, guest }
  throw new WrongUsage(`--file takes LOCAL:GUEST, not "${text}"`)
}

async function localStat(path: string): Promise<{ size: number; mode: number }> {
  const found = await localStep(path, () => stat(path))
  if (found.isFile()) return found
  throw new AppError("invalid", `${path} is not a file`, {
    hint: "directories are copied afterwards, with bhatti cp",
  })
}

async function readLocal(path: string): Promise<Uint8Array> {
  return await localStep(path, () => Bun.file(path).bytes())
}
