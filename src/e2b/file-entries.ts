/** Files as e2b's agent describes them. */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { GuestAttributes, GuestFile } from "@bhatti/contract/guest"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { askGuest } from "../core/ask-guest.ts"
import type { Caller } from "./caller.ts"

/** Links that lead to links are followed so far. */
const linksMax = 8
/** The listing of a tree is held in memory and sent as one message. */
const entriesMax = 20_000
/** Extended attributes that a client's metadata has. */
export const metadataPrefix = "user.e2b."

const types = { other: 0, file: 1, directory: 2, symlink: 3 } as const

export type Entry = Awaited<ReturnType<typeof describe>>

export async function statAt({ core, account, sandbox }: Caller, path: string): Promise<GuestFile> {
  return askGuest(core, account, sandbox, { op: "statFile", path })
}

/** Returns undefined if there is no file. */
export async function findAt(caller: Caller, path: string): Promise<GuestFile | undefined> {
  try {
    return await statAt(caller, path)
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") return undefined
    throw error
  }
}

export async function entryAt(caller: Caller, path: string): Promise<Entry> {
  return describe(caller, path, await statAt(caller, path))
}

/** A link has the type of the file that it leads to. */
async function describe(caller: Caller, path: string, file: GuestFile) {
  const followed = file.type === "symlink" ? await follow(caller, path, file) : undefined
  return {
    name: posix.basename(path),
    type: types[followed?.type ?? file.type],
    path,
    size: BigInt(file.size),
    mode: Number.parseInt(file.mode, 8) & 0o777,
    permissions: permissionsOf(file),
    owner: file.owner,
    group: file.group,
    modifiedTime: timestampFromMs(file.modifiedUnixMs),
    ...(followed && { symlinkTarget: followed.path }),
    metadata: metadataOf(file.attributes),
  }
}

/** A link that leads nowhere leads to itself. */
async function follow(
  caller: Caller,
  path: string,
  file: GuestFile,
): Promise<{ path: string; type: GuestFile["type"] }> {
  let at = { path, file }
  for (let links = 0; links < linksMax && at.file.type === "symlink"; links++) {
    const target = posix.resolve(posix.dirname(at.path), at.file.target ?? "")
    const found = await findAt(caller, target).catch((error: unknown) => {
      if (error instanceof AppError && error.code === "invalid") return undefined
      throw error
    })
    if (!found) return { path, type: "symlink" }
    at = { path: target, file: found }
  }
  return { path: at.path, type: at.file.type }
}

/** All entries down to a depth: each directory is followed by what it holds. Links are not followed. */
export async function entriesBelow(caller: Caller, path: string, depth: number): Promise<Entry[]> {
  const { core, account, sandbox } = caller
  const entries: Entry[] = []
  const visit = async (directory: string, depthLeft: number): Promise<void> => {
    const listed = await askGuest(core, account, sandbox, { op: "listFiles", path: directory })
    if (listed.isTruncated || entries.length + listed.files.length > entriesMax) throw tooMany()
    for (const file of listed.files) {
      const at = posix.join(directory, file.name)
      entries.push(await describe(caller, at, file))
      if (file.type !== "directory" || depthLeft <= 1) continue
      await visit(at, depthLeft - 1).catch((error: unknown) => {
        // A directory may be removed meanwhile.
        if (!(error instanceof AppError) || error.code !== "not_found") throw error
      })
    }
  }
  await visit(path, Math.max(1, depth))
  return entries
}

function tooMany(): AppError {
  return new AppError("too_large", `the listing has more than ${entriesMax} entries`, {
    hint: "list with less depth",
    subject: { kind: "file" },
  })
}

export function metadataOf(attributes: GuestAttributes = {}): Record<string, string> {
  const own = Object.entries(attributes).filter(([name]) => name.startsWith(metadataPrefix))
  return Object.fromEntries(
    own.map(([name, value]) => [name.slice(metadataPrefix.length), Buffer.from(value).toString()]),
  )
}

/** As Go writes them, with a letter for each special bit in front. */
export function permissionsOf({ type, mode }: Pick<GuestFile, "type" | "mode">): string {
  const bits = Number.parseInt(mode, 8)
  const letters = { file: "", directory: "d", symlink: "L", other: "?" }[type]
  const special = `${bits & 0o4000 ? "u" : ""}${bits & 0o2000 ? "g" : ""}${bits & 0o1000 ? "t" : ""}`
  const flags = [...(bits & 0o777).toString(2).padStart(9, "0")]
  return (letters + special || "-") + flags.map((bit, at) => (bit === "1" ? "rwx"[at % 3] : "-")).join("")
}
