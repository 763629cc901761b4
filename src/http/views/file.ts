/** A file on the wire. */

import { AppError } from "@bhatti/contract/errors"
import type { FileEntry, FileEvent } from "@bhatti/contract/file"
import type { GuestAttributes, GuestFile, FileEvent as GuestFileEvent } from "@bhatti/contract/guest"

export function viewFileEvent({ isDirectory, ...event }: GuestFileEvent): FileEvent {
  return { ...event, is_dir: isDirectory }
}

export function viewFile(file: GuestFile): FileEntry {
  return {
    name: file.name,
    size: file.size,
    mode: file.mode,
    is_dir: file.type === "directory",
    type: file.type,
    owner: file.owner,
    group: file.group,
    mtime: new Date(file.modifiedUnixMs).toISOString(),
    target: file.target,
    ...(file.allocated !== undefined && { allocated: file.allocated }),
    ...(file.attributes && { attributes: viewAttributes(file.attributes) }),
  }
}

const base64Prefix = "base64:"

function viewAttributes(attributes: GuestAttributes): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, textOf(value)]))
}

function textOf(value: Uint8Array): string {
  const text = Buffer.from(value).toString()
  const isText = Buffer.from(text).equals(value) && !text.startsWith(base64Prefix)
  return isText ? text : base64Prefix + Buffer.from(value).toString("base64")
}

export function attributesFrom(given: Iterable<[name: string, value: string]>): GuestAttributes {
  return Object.fromEntries(Array.from(given, ([name, text]) => [name, valueFrom(text)]))
}

function valueFrom(text: string): Uint8Array {
  if (!text.startsWith(base64Prefix)) return Buffer.from(text)
  const digits = text.slice(base64Prefix.length)
  const value = Buffer.from(digits, "base64")
  if (value.toString("base64") === digits) return value
  throw new AppError("invalid", "an attribute's value that begins with base64: is base64")
}

/** From `user.NAME=VALUE`. */
export function attributesFromPairs(pairs: readonly string[]): GuestAttributes {
  return attributesFrom(
    pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]),
  )
}
