/** Files of a sandbox: their listing and the requests for them. Contents are sent as raw bytes, not as JSON. */

import { z } from "zod"
import { limits, truncatedHeader } from "./limits.ts"

export const GuestPath = z
  .string()
  .min(1, "a path is needed")
  .max(limits.guestPathMax)
  .refine((path) => !path.includes("\0"), "a path cannot hold a NUL")
  .describe("Absolute, or relative to /workspace (or the image's own directory)")

export const FileMode = z
  .string()
  .regex(/^0?[0-7]{3,4}$/, "a mode has three or four octal digits, such as 0644")

const attributeSyntax = /^user\.[^\0=]{1,250}$/
export const AttributeName = z.string().regex(attributeSyntax, "an attribute is user.NAME, without =")

export const FileOwner = z
  .string()
  .regex(/^[^:\s]{1,64}(:[^:\s]{1,64})?$/, "an owner is USER or USER:GROUP")
  .describe("USER or USER:GROUP of the sandbox, by name or number; default: lohar, or the replaced file's")

export const FileEntry = z
  .object({
    name: z.string(),
    size: z.int(),
    mode: z.string().describe("Octal, such as 0644"),
    is_dir: z.boolean(),
    type: z.enum(["file", "directory", "symlink", "other"]),
    owner: z.string(),
    group: z.string(),
    mtime: z.iso.datetime(),
    target: z.string().nullable().describe("Target of a symlink"),
    allocated: z
      .int()
      .optional()
      .describe("Bytes of the disk that it takes, less than `size` if it is sparse; not in a listing"),
    attributes: z
      .record(z.string(), z.string())
      .optional()
      .describe(
        "Extended attributes `user.*`; not in a listing. A value that is no UTF-8 text, or begins with base64:, is written base64:…",
      ),
  })
  .meta({ id: "FileEntry" })
export type FileEntry = z.infer<typeof FileEntry>

const count = z.coerce.number().pipe(z.int().min(1)).optional()
export const ReadFileQuery = z.strictObject({
  path: GuestPath,
  ls: z
    .enum(["true", "false"])
    .default("false")
    .describe(
      `List the directory instead: a JSON array of at most ${limits.directoryEntriesMax} FileEntry; when there are more, the answer has the header ${truncatedHeader}: true`,
    ),
  stat: z.enum(["true", "false"]).default("false").describe("Only the file's metadata: one FileEntry"),
  offset: count.describe("Start at this line of a file; the first is 1"),
  limit: count.describe("Return at most this many lines of a file"),
  max_bytes: count.describe("Return at most this many bytes"),
})
export const WriteFileQuery = z.strictObject({
  path: GuestPath,
  mode: FileMode.optional().describe("Default: the replaced file's mode, or 0644"),
  owner: FileOwner.optional(),
  attribute: z
    .union([z.string(), z.array(z.string()).max(64)])
    .transform((given) => [given].flat())
    .pipe(
      z.array(
        z
          .string()
          .max(8192)
          .regex(/^user\.[^\0=]{1,250}=/, "an attribute is user.NAME=VALUE"),
      ),
    )
    .optional()
    .describe("user.NAME=VALUE, may be repeated; set beside the replaced file's"),
})
export const SetAttributes = z
  .strictObject({
    path: GuestPath,
    set: z
      .record(AttributeName, z.string().max(8192))
      .default({})
      .describe("base64:… for a value that is no UTF-8 text"),
    remove: z.array(AttributeName).max(64).default([]),
  })
  .meta({ id: "SetAttributes" })
export const RemoveFileQuery = z.strictObject({
  path: GuestPath,
  recursive: z.enum(["true", "false"]).default("false"),
})
export const MakeDirectory = z
  .strictObject({
    path: GuestPath,
    parents: z.boolean().default(true),
    mode: FileMode.default("0755"),
    owner: FileOwner.optional(),
  })
  .meta({ id: "MakeDirectory" })
export const MoveFile = z.strictObject({ from: GuestPath, to: GuestPath }).meta({ id: "MoveFile" })
export const ArchiveQuery = z.strictObject({
  path: GuestPath,
  sparse: z
    .enum(["true", "false"])
    .default("false")
    .describe("Pack the holes of sparse files as such, in the PAX format 1.0 of GNU tar"),
})
export const WriteArchiveQuery = z.strictObject({ path: GuestPath, owner: FileOwner.optional() })

export const WatchedDirectory = z
  .strictObject({
    path: GuestPath.describe("A directory: absolute, or relative to /workspace"),
    recursive: z.boolean().default(false).describe("Watch the directories below it too"),
  })
  .meta({ id: "WatchedDirectory" })
export const WatchFilesQuery = z.strictObject({
  path: GuestPath.describe("A directory: absolute, or relative to /workspace"),
  recursive: z.enum(["true", "false"]).default("false").describe("Watch the directories below it too"),
})
export const FileWatch = z
  .object({ watch: z.string(), path: z.string(), recursive: z.boolean() })
  .meta({ id: "FileWatch" })
export type FileWatch = z.infer<typeof FileWatch>
export const ReadWatchQuery = z.strictObject({
  after: z.coerce
    .number()
    .pipe(
      z
        .int()
        .min(0)
        .max(2 ** 52),
    )
    .default(0)
    .describe("The sequence of the last event that you have; events up to it are then forgotten"),
})

export const FileEvent = z
  .object({
    type: z
      .enum(["create", "write", "remove", "rename", "chmod", "lost"])
      .describe("`lost`: events are missing here, so list the directory again; `reason` says why"),
    path: z.string().describe("Relative to the watched directory, which is `.` itself"),
    to: z.string().nullable().describe("The new path of a renamed file"),
    is_dir: z.boolean(),
    reason: z.string().nullable(),
    sequence: z.int(),
  })
  .meta({ id: "FileEvent" })
export type FileEvent = z.infer<typeof FileEvent>
export const FileEvents = z
  .object({
    events: z.array(FileEvent),
    next: z.int().describe("Send it as `after` next time"),
    ended: z.string().nullable().describe("Why no further event follows"),
  })
  .meta({ id: "FileEvents" })

/** A line of the stream; empty lines keep the connection alive. */
export const FileEventLine = z.union([
  FileEvent,
  z.object({ type: z.literal("watching"), watch: z.string() }).describe("Changes from now on are told"),
  z.object({ type: z.literal("end"), reason: z.string() }),
  z.object({ type: z.literal("error"), data: z.string(), code: z.string(), hint: z.string().nullable() }),
])
export type FileEventLine = z.infer<typeof FileEventLine>

export const Done = z.object({ status: z.literal("ok") }).meta({ id: "Done" })
export const Unpacked = z
  .object({ status: z.literal("ok"), entries: z.int(), bytes: z.int() })
  .meta({ id: "Unpacked" })
