/**
 * Runs the unpacker (`unpack/`) in a directory of its own and reads what it says. It is a process without rights that
 * reads the bytes of strangers, so its messages are checked like theirs, and a directory is emptied by a program that
 * takes any name.
 */
import { chmod, mkdir, readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { z } from "zod"
import program from "../../dist/unpack" with { type: "file" }
import { parseJson } from "../lib/parse-json.ts"
import { runProgram } from "../lib/program.ts"
import { whenAborted } from "../lib/when-aborted.ts"
import type { Layer } from "./oci-manifest.ts"
import { hexOf } from "./oci-manifest.ts"
import { refusal } from "./refusal.ts"

export type UnpackLimits = {
  /** Limit on all blobs together. */
  compressedBytes: number
  /** Limit on all files of all layers, also on those that a later layer removes. */
  unpackedBytes: number
  /** Limit on all layers together. */
  entries: number
  /** Directories on the way to a file. */
  depth: number
  /** Unpacked to compressed bytes of a layer, once it is larger than 1 GiB. */
  ratio: number
  /** Bytes that stay free on the file system of the directory. */
  freeBytes: number
  /** Address space of each process. */
  memoryBytes: number
  timeoutMs: number
}

export const unpackLimits: UnpackLimits = {
  compressedBytes: 16 * 1024 ** 3,
  unpackedBytes: 32 * 1024 ** 3,
  entries: 1_000_000,
  depth: 128,
  ratio: 500,
  freeBytes: 1024 ** 3,
  memoryBytes: 4 * 1024 ** 3,
  timeoutMs: 1_800_000,
}

export type UnpackerRun = {
  /** For this work alone, and emptied first. */
  directory: string
  uid: number
  limits: UnpackLimits
  /** Layers of a layout, an archive, whose kind is told by its content unless it is a tree's, or a disk to pack. */
  from:
    | { layout: string; layers: Layer[]; id: string }
    | { archive: ReadableStream<Uint8Array>; isTree?: boolean | undefined }
    | DiskSource
  onProgress?: ((progress: { layer: number; bytes: number }) => void) | undefined
  signal?: AbortSignal | undefined
}

type DiskSource = {
  disk: readonly { path: string; format: "raw" | "qcow2" }[]
  diskBytes: number
  /** As `unpack/pack.go` has them. */
  omitted?: readonly string[]
  emptied?: readonly string[]
  omitted_links?: readonly { path: string; target: string }[]
}

const Count = z.int().nonnegative().default(0)
const Done = z.object({
  type: z.literal("done"),
  bytes: Count,
  entries: Count,
  left_out: Count,
  disk_bytes: Count,
  id: z.string().regex(/^[0-9a-f]*$/),
})
const Archive = z.object({
  type: z.literal("archive"),
  files: z.array(z.object({ name: z.string(), number: z.int().positive(), size: z.int().nonnegative() })),
})
const Message = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), layer: Count, bytes: Count }),
  Done,
  Archive,
  z.object({
    type: z.literal("refused"),
    reason: z.string().regex(/^[a-z_0-9]{1,40}$/),
    message: z.string(),
  }),
  z.object({ type: z.literal("failed"), message: z.string() }),
])
type Message = z.infer<typeof Message>
export type UnpackerResult = z.infer<typeof Done> | z.infer<typeof Archive>

/** The list of an archive's files is the longest. */
const messageBytesMax = 32 * 1024 * 1024
const wordsMax = 1000
const cleanDeadlineMs = 600_000

/** Leaves `disk.raw` in the directory, an image's files in `content`, or for a disk `layer.tar`. */
export async function runUnpacker(run: UnpackerRun): Promise<UnpackerResult> {
  const { directory, from, limits, signal } = run
  signal?.throwIfAborted()
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await emptyDirectory(directory)
  await using undo = new AsyncDisposableStack()
  undo.defer(() => emptyDirectory(directory))
  const request = {
    parent: process.pid,
    uid: run.uid,
    layout: "layout" in from ? from.layout : "",
    layers: "layout" in from ? from.layers.map(layerOf) : [],
    id: "layout" in from ? from.id : "",
    is_tree: "archive" in from && from.isTree === true,
    ...("disk" in from && packingOf(from)),
    limits: {
      compressed_bytes: limits.compressedBytes,
      unpacked_bytes: limits.unpackedBytes,
      entries: limits.entries,
      depth: limits.depth,
      ratio: limits.ratio,
      free_bytes: limits.freeBytes,
      memory_bytes: limits.memoryBytes,
      seconds: Math.ceil(limits.timeoutMs / 1000),
      disk_bytes: "disk" in from ? from.diskBytes : 0,
    },
  }
  await writeFile(join(directory, "request.json"), JSON.stringify(request))
  const copy = join(directory, "unpack")
  await writeFile(copy, await Bun.file(program).bytes())
  await chmod(copy, 0o755)
  const result = await runToEnd([copy, "run", directory], run)
  const kept = "disk" in from ? "layer.tar" : result.type === "done" ? "disk.raw" : "content"
  await emptyDirectory(directory, kept)
  undo.move()
  return result
}

function packingOf({ disk, omitted, emptied, omitted_links }: DiskSource) {
  return { sources: disk, omitted, emptied, omitted_links }
}

function layerOf({ digest, size, diffId, compression }: Layer) {
  return { digest: hexOf(digest), size, diff_id: hexOf(diffId), compression }
}

async function runToEnd(command: string[], run: UnpackerRun): Promise<UnpackerResult> {
  const child = Bun.spawn(command, {
    stdin: "archive" in run.from ? run.from.archive : "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  let end: AppError | undefined
  // Its processes end with the first one. They hold the pipes, which are read to their end, so none is left after.
  const stop = (why?: AppError) => {
    end ??= why
    child.kill("SIGKILL")
  }
  using _ = run.signal === undefined ? undefined : whenAborted(run.signal, () => stop())
  const deadline = setTimeout(
    () => stop(refusal("too_slow", `unpacking took longer than ${run.limits.timeoutMs / 1000} s`)),
    run.limits.timeoutMs,
  )
  try {
    let last: Message | undefined
    const words = Bun.readableStreamToText(child.stderr)
    for await (const message of messagesOf(child.stdout, stop)) {
      if (message.type === "progress") run.onProgress?.(message)
      else last ??= message
    }
    await child.exited
    run.signal?.throwIfAborted()
    if (end !== undefined) throw end
    if (last?.type === "refused") throw refusal(last.reason, last.message.slice(0, wordsMax))
    if (child.exitCode === 0 && (last?.type === "done" || last?.type === "archive")) return last
    const why =
      last?.type === "failed" ? last.message.slice(0, wordsMax) : `exit ${child.exitCode ?? child.signalCode}`
    throw new AppError("unavailable", `the image cannot be unpacked: ${why}`, {
      cause: new Error((await words).slice(-wordsMax)),
      retryable: false,
    })
  } finally {
    clearTimeout(deadline)
  }
}

async function* messagesOf(
  stream: ReadableStream<Uint8Array>,
  stop: (why: AppError) => void,
): AsyncGenerator<Message> {
  const decoder = new TextDecoder()
  let rest = ""
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) {
      const message = Message.safeParse(parseJson(line)).data
      if (message !== undefined) yield message
    }
    if (rest.length > messageBytesMax) {
      stop(refusal("crashed", "the image makes the unpacker fail"))
      rest = ""
    }
  }
}

/** Removes everything in a directory, except one name. */
export async function emptyDirectory(directory: string, kept?: string): Promise<void> {
  const names = (await readdir(directory)).filter((name) => name !== kept)
  if (names.length === 0) return
  await runProgram(["rm", "-rf", "--one-file-system", "--", ...names.map((name) => join(directory, name))], {
    deadlineMs: cleanDeadlineMs,
  })
}
