/** Files of the guest: requests, answers, and transfers of files and archives. */

import type { FileList, GuestAttributes, GuestFile, GuestOpenings, GuestOwner } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isObject, parseObject, type Reading } from "./message.ts"
import { Operation, type StreamLink } from "./operation.ts"

/** An answer includes the wait for the guest's disk: an emulated guest may take long to write 100 MB. */
const stallDeadlineMs = 120_000
const firstDeadlineMs = 30_000
/** The limit that the protocol sets on a listing. */
const entriesMax = 100_000

/** A reading request names the region of the shared memory for the bytes. */
type Shared = { shared?: number | undefined }

export const fileRequests = {
  readFile: ({ path, offset, limit, shared }: GuestOpenings["readFile"] & Shared) => ({
    op: "file_read",
    path,
    offset,
    limit,
    shared,
  }),
  writeFile: ({ path, mode, size, parents, owner, attributes }: GuestOpenings["writeFile"]) => ({
    op: "file_write",
    path,
    mode: mode ?? null,
    size: size ?? null,
    parents: parents ?? false,
    owner,
    attributes: attributes && encodeAttributes(attributes),
  }),
  readArchive: (archive: GuestOpenings["readArchive"] & Shared) => ({ ...archive, op: "archive_read" }),
  writeArchive: (archive: GuestOpenings["writeArchive"]) => ({ ...archive, op: "archive_write" }),
} as const

/** A file being read from the guest. Closing it cancels the transfer. */
export class Download extends Operation<GuestFile, { bytes: number }> {
  constructor(id: number, link: StreamLink) {
    super(id, link, {
      parseFirst: (payload) => {
        const { file } = parseObject(payload)
        return file === undefined ? undefined : parseFile(file)
      },
      parseAnswer: (value) => ({ bytes: parseCount(value, "bytes") }),
      toChunk: (_, bytes) => bytes,
      outputFails: true,
      firstDeadlineMs,
      stallDeadlineMs,
    })
  }

  get file(): Promise<GuestFile> {
    return this.first
  }
}

/** A file being written to the guest, or an archive in either direction. Closing it cancels the transfer. */
export class Transfer extends Operation<never, { bytes: number; entries: number }> {
  constructor(id: number, link: StreamLink, options: { of: "file" | "archive" }) {
    super(id, link, {
      parseFirst: () => undefined,
      parseAnswer: (value) => ({
        bytes: parseCount(value, "bytes"),
        entries: options.of === "file" ? 1 : parseCount(value, "entries"),
      }),
      toChunk: (_, bytes) => bytes,
      outputFails: true,
      stallDeadlineMs,
    })
  }
}

/** Collects the messages of a listing. */
export function readListing(): Reading<FileList> {
  const files: GuestFile[] = []
  return {
    onMessage(payload) {
      const { entries } = parseObject(payload)
      if (!Array.isArray(entries) || entries.length === 0) return false
      if (files.length + entries.length > entriesMax) throw new WireError("a listing is longer than agreed")
      for (const entry of entries) files.push(parseFile(entry))
      return true
    },
    parse(value) {
      if (!isObject(value) || typeof value.truncated !== "boolean") {
        throw new WireError("the guest's answer to file_list cannot be read")
      }
      return { files, isTruncated: value.truncated }
    },
  }
}

export function parseOwner(value: unknown): GuestOwner {
  if (isObject(value)) {
    const { uid, gid } = value
    if (isWhole(uid) && isWhole(gid) && uid >= 0 && gid >= 0) return { uid, gid }
  }
  throw new WireError("the guest's answer to file_owner cannot be read")
}

export function parseStat(value: unknown): GuestFile {
  if (!isObject(value)) throw new WireError("the guest's answer to file_stat cannot be read")
  return parseFile(value.file)
}

const types = ["file", "directory", "symlink", "other"] as const

function parseFile(value: unknown): GuestFile {
  if (isObject(value)) {
    const { name, size, mode, owner, group, target = null, modified_unix_ms: modifiedUnixMs } = value
    const { version = null } = value
    const type = types.find((known) => known === value.type)
    if (
      typeof name === "string" &&
      isWhole(size) &&
      size >= 0 &&
      typeof mode === "string" &&
      /^[0-7]{4}$/.test(mode) &&
      type !== undefined &&
      typeof owner === "string" &&
      typeof group === "string" &&
      isWhole(modifiedUnixMs) &&
      Math.abs(modifiedUnixMs) <= unixMsMax &&
      (target === null || typeof target === "string") &&
      (version === null || (typeof version === "string" && versionSyntax.test(version)))
    ) {
      const attributes = parseAttributes(value.attributes)
      const { allocated } = value
      if (allocated !== undefined && !(isWhole(allocated) && allocated >= 0))
        throw new WireError("what the guest says about a file cannot be read")
      const about = { name, size, mode, type, owner, group, modifiedUnixMs, target, version }
      return { ...about, ...(attributes && { attributes }), ...(allocated !== undefined && { allocated }) }
    }
  }
  throw new WireError("what the guest says about a file cannot be read")
}

/** A guest's filesystem may hold many; no honest agent tells more. */
const attributesMax = 64
const attributeCharactersMax = 100_000

export function encodeAttributes(attributes: GuestAttributes): Record<string, string> {
  return Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [name, Buffer.from(value).toString("base64")]),
  )
}

function parseAttributes(value: unknown): GuestAttributes | undefined {
  if (value === undefined) return undefined
  const entries = isObject(value) ? Object.entries(value) : undefined
  if (!entries || entries.length > attributesMax) throw new WireError("a file's attributes cannot be read")
  const parsed = entries.map(([name, text]): [string, Uint8Array] => {
    if (!/^user\..{1,250}$/s.test(name) || typeof text !== "string" || text.length > attributeCharactersMax)
      throw new WireError("a file's attributes cannot be read")
    return [name, Buffer.from(text, "base64")]
  })
  return Object.fromEntries(parsed)
}

/** It becomes a header of an answer. */
const versionSyntax = /^[0-9a-f-]{1,64}$/

/** The latest time that a `Date` can represent. */
const unixMsMax = 8.64e15

function parseCount(value: unknown, field: "bytes" | "entries"): number {
  const count = isObject(value) ? value[field] : undefined
  if (!isWhole(count) || count < 0) throw new WireError("the result of a transfer cannot be read")
  return count
}

function isWhole(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value)
}
