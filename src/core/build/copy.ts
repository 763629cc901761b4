/** COPY and ADD: from the directory that the client has sent, from the Dockerfile's text, or from another builder. */

import { AppError } from "@bhatti/contract/errors"
import type { GuestOwner } from "@bhatti/contract/guest"
import { type Header, pack } from "tar-stream"
import { hasWildcard, patternOf } from "../../lib/path-pattern.ts"
import type { CopyStep } from "../../rules/dockerfile/plan.ts"
import { DockerfileError } from "../../rules/dockerfile/refusal.ts"
import type { Selection } from "../../rules/dockerfile/select.ts"
import { answerDeadlineMs } from "../awake.ts"
import type { BuildContext, ContextEntry, Guest } from "../host.ts"
import { applets, type Builder } from "./builder.ts"

/** The files that an instruction copies, found before anything runs. */
export type CopySource = Selection<ContextEntry> & { archives: ContextEntry[] }

const root: GuestOwner = { uid: 0, gid: 0 }
const deadline = { deadlineMs: answerDeadlineMs }

export async function copyFromContext(
  builder: Builder,
  step: CopyStep,
  { source, context, signal }: { source: CopySource; context: BuildContext; signal: AbortSignal },
): Promise<void> {
  const { guest } = builder
  const owner = step.chown === null ? root : await guest.ask({ op: "findOwner", owner: step.chown }, deadline)
  const inline = step.inline.map(({ name, text }) => ({ name, bytes: new TextEncoder().encode(text) }))
  for (const archive of source.archives) await unpack(builder, step.target, { archive, context, signal })
  if (source.items.length === 0 && inline.length === 0) {
    if (source.archives.length === 0) await makeDirectory(guest, step.target, owner)
    return
  }
  const single = !source.isInto && source.items.length + inline.length === 1
  const { directory, name } = await placeOf(guest, step.target, single)
  const entries = async function* (): AsyncGenerator<Packed> {
    for (const { entry, to } of source.items) yield packedOf(entry, name ?? to, { step, context })
    for (const file of inline)
      yield {
        header: { name: name ?? file.name, type: "file", size: file.bytes.length, mode: step.chmod ?? 0o644 },
        content: [file.bytes],
      }
  }
  await send(guest, { path: directory, owner }, archiveOf(entries()), signal)
}

/** Returns the directory, and the name in it if the target is one file's. */
async function placeOf(
  guest: Guest,
  target: string,
  isSingle: boolean,
): Promise<{ directory: string; name: string | undefined }> {
  if (!isSingle || (await kindOf(guest, `${target}/.`)) === "directory")
    return { directory: target, name: undefined }
  const at = target.lastIndexOf("/")
  return { directory: target.slice(0, at) || "/", name: target.slice(at + 1) }
}

async function kindOf(guest: Guest, path: string): Promise<string | undefined> {
  try {
    return (await guest.ask({ op: "statFile", path }, deadline)).type
  } catch (error) {
    if (error instanceof AppError && error.code !== "unavailable") return undefined
    throw error
  }
}

async function makeDirectory(guest: Guest, path: string, owner: GuestOwner): Promise<void> {
  await guest.ask({ op: "makeDirectory", path, parents: true, mode: "0755", owner }, deadline)
}

type NewHeader = Partial<Header> & Pick<Header, "name" | "type">
type Packed = { header: NewHeader; content: Iterable<Uint8Array> | AsyncIterable<Uint8Array> }

function packedOf(
  { path, kind, mode, modifiedMs, size, link }: ContextEntry,
  name: string,
  { step, context }: { step: CopyStep; context: BuildContext },
): Packed {
  const common = { name, mode: step.chmod ?? mode, mtime: new Date(modifiedMs) }
  if (kind === "link")
    return { header: { ...common, mode, type: "symlink", linkname: link ?? "" }, content: [] }
  if (kind === "directory") return { header: { ...common, type: "directory" }, content: [] }
  return { header: { ...common, type: "file", size }, content: context.read(path) }
}

async function* archiveOf(entries: AsyncIterable<Packed>): AsyncGenerator<Uint8Array> {
  const archive = pack()
  const packing = (async () => {
    for await (const { header, content } of entries) {
      const done = Promise.withResolvers<void>()
      // Without the extra bit the packer would replace mode 0 by its default.
      const coded = { ...header, mode: (header.mode ?? 0) | 0o100_000 }
      const entry = archive.entry(coded, (error) => (error ? done.reject(error) : done.resolve()))
      done.promise.catch(() => undefined)
      if (header.type === "file") {
        let wake = () => {}
        entry.on("drain", () => wake())
        for await (const piece of content) {
          const { promise, resolve } = Promise.withResolvers<void>()
          wake = resolve
          if (!entry.write(piece)) await Promise.race([promise, done.promise])
        }
        entry.end(null)
      }
      await done.promise
    }
    archive.finalize()
  })()
  packing.catch((error: unknown) =>
    archive.destroy(error instanceof Error ? error : new Error(String(error))),
  )
  yield* archive as AsyncIterable<Uint8Array>
  await packing
}

async function send(
  guest: Guest,
  to: { path: string; owner?: GuestOwner; exact?: boolean; root?: string },
  archive: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const transfer = guest.open({ op: "writeArchive", ...to })
  const close = () => transfer.close()
  signal.addEventListener("abort", close, { once: true })
  try {
    for await (const piece of archive) await Promise.race([transfer.write(piece), transfer.result])
    transfer.endInput()
    await transfer.result
  } finally {
    signal.removeEventListener("abort", close)
    transfer.close()
  }
}

/** ADD unpacks archives, whatever their names are. */
async function unpack(
  { guest }: Builder,
  target: string,
  { archive, context, signal }: { archive: ContextEntry; context: BuildContext; signal: AbortSignal },
): Promise<void> {
  await makeDirectory(guest, target, root)
  const format = archiveFormat(await firstBytes(context, archive))
  const argv = [`${applets}/tar`, "-x", ...(format ? [format] : []), "-f", "-", "-C", target]
  const process = guest.processes.start({ argv, user: "0", cwd: "/", stdin: true, onDisconnect: "kill" })
  const kill = () => process.kill("the build")
  signal.addEventListener("abort", kill, { once: true })
  try {
    let words = ""
    const reading = (async () => {
      for await (const { bytes } of process.output)
        words = (words + new TextDecoder().decode(bytes)).slice(-1000)
    })()
    for await (const piece of context.read(archive.path))
      await Promise.race([process.write(piece), process.result])
    process.endInput()
    await reading
    const outcome = await process.result
    if (outcome.state === "ended" && outcome.ended.exitCode === 0) return
    throw new AppError("invalid", `${archive.path} cannot be unpacked: ${words.trim()}`)
  } finally {
    signal.removeEventListener("abort", kill)
  }
}

const formats: readonly [option: string, magic: number[]][] = [
  ["-z", [0x1f, 0x8b]],
  ["-j", [0x42, 0x5a, 0x68]],
  ["-J", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
]
/** The kit's tar cannot read it. */
const zstdMagic = [0x28, 0xb5, 0x2f, 0xfd]
const tarMagic = { at: 257, text: "ustar" }

function archiveFormat(bytes: Uint8Array): string | undefined {
  return formats.find(([, magic]) => beginsWith(bytes, magic))?.[0]
}

function beginsWith(bytes: Uint8Array, magic: readonly number[]): boolean {
  return magic.every((byte, at) => bytes[at] === byte)
}

async function firstBytes(context: BuildContext, { path }: ContextEntry): Promise<Uint8Array> {
  for await (const piece of context.read(path)) return piece
  return new Uint8Array()
}

export async function isArchive(context: BuildContext, entry: ContextEntry): Promise<boolean> {
  if (entry.kind !== "file") return false
  const bytes = await firstBytes(context, entry)
  if (archiveFormat(bytes)) return true
  return (
    new TextDecoder().decode(bytes.subarray(tarMagic.at, tarMagic.at + tarMagic.text.length)) ===
    tarMagic.text
  )
}

export async function isZstd(context: BuildContext, entry: ContextEntry): Promise<boolean> {
  return entry.kind === "file" && beginsWith(await firstBytes(context, entry), zstdMagic)
}

/** Owners, links and attributes stay as they are in the other builder's files. */
export async function copyFromBuilder(
  builder: Builder,
  step: CopyStep,
  { from, signal }: { from: Builder; signal: AbortSignal },
): Promise<void> {
  const sources: string[] = []
  for (const source of step.sources) sources.push(...(await expandIn(from.guest, source, step.line)))
  if (sources.length > 1 && !step.target.endsWith("/"))
    throw new DockerfileError(step.line, "the target of several sources does not end in a slash")
  const { guest } = builder
  const owner =
    step.chown === null ? undefined : await guest.ask({ op: "findOwner", owner: step.chown }, deadline)
  for (const source of sources) {
    const isDirectory = (await kindOf(from.guest, `${source}/.`)) === "directory"
    const path = isDirectory && source !== "/" ? await followed(from, source, signal) : source
    const isSingle = !isDirectory && !step.target.endsWith("/")
    const { directory, name } = isDirectory
      ? { directory: step.target, name: "" }
      : await placeOf(guest, step.target, isSingle)
    const archive = from.guest.open({ op: "readArchive", path, exact: true })
    try {
      await send(
        guest,
        {
          path: directory,
          ...(owner ? { owner } : { exact: true, owner: root }),
          ...(name !== undefined && source !== "/" && { root: name }),
        },
        archive.output,
        signal,
      )
      await archive.result
    } finally {
      archive.close()
    }
    if (step.chmod !== null)
      await builder.tool(
        ["chmod", "-R", step.chmod.toString(8), name ? `${directory}/${name}` : directory],
        signal,
      )
  }
}

/** A directory may be named by a link to it. */
async function followed(from: Builder, path: string, signal: AbortSignal): Promise<string> {
  let words = ""
  await from.run(
    { argv: [`${applets}/readlink`, "-f", path], user: "0", cwd: "/" },
    { signal, onOutput: (_, bytes) => (words += new TextDecoder().decode(bytes)) },
  )
  return words.trimEnd() || path
}

async function expandIn(guest: Guest, source: string, line: number): Promise<string[]> {
  let found = [""]
  for (const part of source.split("/").filter((one) => one !== "" && one !== ".")) {
    if (!hasWildcard(part)) {
      found = found.map((path) => `${path}/${part}`)
      continue
    }
    const pattern = patternOf(part)
    const next: string[] = []
    for (const path of found) {
      if ((await kindOf(guest, `${path}/.`)) !== "directory") continue
      const { files } = await guest.ask({ op: "listFiles", path: path || "/" }, deadline)
      next.push(...files.filter(({ name }) => pattern.test(name)).map(({ name }) => `${path}/${name}`))
    }
    found = next
  }
  const there: string[] = []
  for (const path of found) if ((await kindOf(guest, path || "/")) !== undefined) there.push(path || "/")
  if (there.length > 0) return there
  throw new DockerfileError(line, `"${source}" is not in the stage or image that it is copied from`)
}
