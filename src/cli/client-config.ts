/**
 * Writes address and key into the configuration file: whole or not at all, readable by its owner only, keeping all
 * other settings. Loaded by `setup` and `mcp install` alone; `settings.ts` reads the file.
 */

import { chmod, chown, mkdir, open, realpath, rename, unlink } from "node:fs/promises"
import { dirname } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { isMap, parseDocument } from "yaml"
import { findCaller } from "../lib/caller.ts"
import { errorCodeOf } from "../lib/error-code.ts"
import { whenMissing } from "../lib/missing-files.ts"
import { randomHex } from "../lib/random-hex.ts"
import type { ClientFile, Environment } from "./settings.ts"

/** `caFile` is an absolute path, so it cannot be mistaken for a keyword. */
export type SavedSettings = { url: string; token: string; caFile: string | "keep" | "remove" }

export async function writeClientConfig(
  file: ClientFile,
  settings: SavedSettings,
  env: Environment,
): Promise<void> {
  const text = editedText(file, settings)
  const owner = file.isNamedByUser ? undefined : findCaller(env).owner
  await writeSafely(file.path, text, owner)
}

/** As `writePrivately`, with an error for the user. */
export async function writeSafely(
  path: string,
  text: string,
  owner: { uid: number; gid: number } | undefined,
): Promise<void> {
  try {
    await writePrivately(path, text, owner)
  } catch (cause) {
    if (cause instanceof AppError) throw cause
    throw new AppError("invalid", `cannot write ${path} (${errorCodeOf(cause) ?? "unknown reason"})`, {
      cause,
    })
  }
}

function editedText({ path, content }: ClientFile, settings: SavedSettings): string {
  const document = parseDocument("cause" in content ? "" : (content.text ?? ""))
  if (document.errors.length > 0 || !(document.contents === null || isMap(document.contents)))
    throw new AppError("invalid", `the configuration file ${path} is not lines of \`key: value\``, {
      hint: "correct it or move it away, then again: bhatti setup",
    })
  document.set("api_url", settings.url)
  document.set("auth_token", settings.token)
  if (settings.caFile === "remove") document.delete("ca_file")
  else if (settings.caFile !== "keep") document.set("ca_file", settings.caFile)
  return String(document)
}

async function writePrivately(
  path: string,
  text: string,
  owner: { uid: number; gid: number } | undefined,
): Promise<void> {
  const directory = dirname(path)
  const made = await mkdir(directory, { recursive: true, mode: 0o700 })
  if (made !== undefined && owner) await chown(directory, owner.uid, owner.gid)
  // If the path is a link, the file it points to is replaced and the link stays.
  const place = (await realpath(path).catch(whenMissing)) ?? path
  const beside = `${place}.${randomHex(8)}`
  const handle = await open(beside, "wx", 0o600)
  try {
    if (owner) await chown(beside, owner.uid, owner.gid)
    await chmod(beside, 0o600)
    await handle.writeFile(text)
    await handle.sync()
    await rename(beside, place)
  } catch (error) {
    await unlink(beside)
    throw error
  } finally {
    await handle.close()
  }
}
