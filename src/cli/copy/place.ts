/** The source or target of `bhatti cp`: `SANDBOX:PATH`, a local path, or `-` for a standard stream. */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { FileEntry } from "@bhatti/contract/file"
import type { Client } from "@bhatti/sdk/client"

export type GuestPlace = { kind: "guest"; sandbox: string; path: string }
export type LocalPlace = { kind: "local"; path: string }
export type CopyPlace = GuestPlace | LocalPlace | { kind: "standard" }

/** A local name with a colon in it is written `./a:b`. */
export function placeOf(text: string): CopyPlace {
  if (text === "-") return { kind: "standard" }
  const guest = /^([a-zA-Z0-9][a-zA-Z0-9._-]{0,62}):(.*)$/s.exec(text)
  if (guest === null) return { kind: "local", path: text }
  const [, sandbox = "", path = ""] = guest
  return { kind: "guest", sandbox, path: path === "" ? "." : path }
}

export type Copy =
  | { kind: "upload"; sources: (LocalPlace | { kind: "standard" })[]; target: GuestPlace }
  | { kind: "download"; sources: GuestPlace[]; target: LocalPlace | { kind: "standard" } }

export function copyOf(words: readonly string[]): Copy | { refusal: string } {
  const places = words.map(placeOf)
  const target = places.pop()
  if (target === undefined || places.length === 0) return { refusal: "TARGET is missing" }
  if (target.kind === "guest") {
    const sources = places.filter((place) => place.kind !== "guest")
    if (sources.length < places.length)
      return { refusal: "one side is here: copying from sandbox to sandbox takes two steps" }
    return { kind: "upload", sources, target }
  }
  const sources = places.filter((place) => place.kind === "guest")
  if (sources.length < places.length)
    return { refusal: "one side is in a sandbox, written SANDBOX:PATH; the other is here" }
  return { kind: "download", sources, target }
}

/** `dir/.` and the like mean the contents of the directory, not the directory. */
export function meansContents(path: string): boolean {
  return /(^|\/)\.\.?\/*$/.test(path)
}

/** A relative path begins at the sandbox's working directory, which its guest knows. */
export function guestPath(path: string): string {
  return posix.isAbsolute(path) ? posix.resolve(path) : posix.normalize(path).replace(/\/+$/, "")
}

export function placeText(place: GuestPlace): string {
  return `${place.sandbox}:${place.path}`
}

const linksMax = 16

/** Returns the file that a path of the sandbox leads to, links followed, or undefined. */
export async function findInGuest(
  client: Client,
  place: GuestPlace,
): Promise<{ path: string; entry: FileEntry } | undefined> {
  let path = guestPath(place.path)
  for (let links = 0; links < linksMax; links++) {
    const entry = await statIfAny(client, place.sandbox, path)
    if (entry === undefined) return undefined
    if (entry.type !== "symlink" || entry.target === null) return { path, entry }
    path = guestPath(
      posix.isAbsolute(entry.target) ? entry.target : posix.join(posix.dirname(path), entry.target),
    )
  }
  throw new AppError("invalid", `${placeText(place)} leads through too many links`)
}

async function statIfAny(client: Client, sandbox: string, path: string): Promise<FileEntry | undefined> {
  try {
    return await client.statFile(sandbox, path)
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "not_found") throw error
    // The sandbox itself may be missing.
    await client.getSandbox({ params: { id: sandbox } })
    return undefined
  }
}
