/** Files of a sandbox, streamed; no whole file is held in memory. */

import { AppError } from "@bhatti/contract/errors"
import type {
  FileSection,
  GuestAttributes,
  GuestFile,
  GuestOpening,
  GuestOwner,
} from "@bhatti/contract/guest"
import { limits } from "@bhatti/contract/limits"
import { checkGuestPath } from "../rules/input.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awakeGuest } from "./awake.ts"
import type { ForRequest } from "./core.ts"
import { explainedArchive, explainedDownload, explainedTransfer } from "./explained-transfer.ts"
import type { Guest, GuestDownload, GuestStream, GuestStreams, GuestTransfer } from "./host.ts"

/** Opens a stream of a file. */
export async function openFile(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  opening: GuestOpening<"readFile">,
): Promise<GuestDownload> {
  const guest = await guestFor(core, account, nameOrId, [opening.path])
  return explainedDownload(core, guest, guest.open(opening))
}

/** Opens a stream of an archive. */
export async function openArchive(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  opening: GuestOpening<"readArchive">,
): Promise<GuestStream & Pick<GuestStreams["readArchive"], "result">> {
  const guest = await guestFor(core, account, nameOrId, [opening.path])
  return explainedArchive(core, guest, guest.open(opening))
}

/** Wakes the guest for an operation on files, if their paths may be paths at all. */
function guestFor(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  paths: readonly string[],
): Promise<Guest> {
  for (const path of paths) checkGuestPath(path)
  return awakeGuest(core, account, nameOrId, "a file operation")
}

/** How often a file that changes between two looks is looked at again. */
const looksMax = 3

/**
 * Reads the section that `choose` picks when it sees the file, all of it from the same version of the file. Without a
 * section it is the whole file. A file that changes all the time is read as a whole.
 */
export async function readFileSection(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  { path, choose }: { path: string; choose: (file: GuestFile) => FileSection | undefined },
): Promise<{ download: GuestDownload; section: FileSection | undefined }> {
  const guest = await guestFor(core, account, nameOrId, [path])
  const open = (section: Partial<FileSection>) =>
    explainedDownload(core, guest, guest.open({ op: "readFile", path, ...section }))
  for (let look = 0; look < looksMax; look++) {
    const glance = open({ limit: 0 })
    const seen = await glance.file.finally(() => glance.close())
    const section = choose(seen)
    if (!section) break
    const download = open(section)
    if (isSameFile(await download.file, seen)) return { download, section }
    download.close()
  }
  return { download: open({}), section: undefined }
}

function isSameFile(one: GuestFile, other: GuestFile): boolean {
  return (
    one.version === other.version && one.size === other.size && one.modifiedUnixMs === other.modifiedUnixMs
  )
}

export async function makeDirectory(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  options: { path: string; parents: boolean; mode: string; owner?: string | undefined },
): Promise<void> {
  const guest = await guestFor(core, account, nameOrId, [options.path])
  const { owner, ...directory } = options
  const make = async () =>
    guest.ask(
      { op: "makeDirectory", ...directory, ...(await ownerIn(guest, owner)) },
      { deadlineMs: answerDeadlineMs },
    )
  await explainedTransfer(core, guest, make())
}

/** An agent too old for owners says here that it does not know the user, before anything is written. */
async function ownerIn(guest: Guest, owner: string | undefined): Promise<{ owner?: GuestOwner }> {
  return owner === undefined
    ? {}
    : { owner: await guest.ask({ op: "findOwner", owner }, { deadlineMs: answerDeadlineMs }) }
}

const oldAgentHint =
  "a sandbox that has run since before an update of bhatti has no attributes of files until it is restarted"

/** An agent too old for attributes says so here, before anything is written. */
async function attributesIn(
  guest: Guest,
  attributes: GuestAttributes | undefined,
): Promise<{ attributes?: GuestAttributes }> {
  if (attributes === undefined || Object.keys(attributes).length === 0) return {}
  await setIn(guest, { path: "/", set: {}, remove: [] })
  return { attributes }
}

async function setIn(
  guest: Guest,
  change: { path: string; set: GuestAttributes; remove: string[] },
): Promise<void> {
  try {
    await guest.ask({ op: "setAttributes", ...change }, { deadlineMs: answerDeadlineMs })
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "unavailable") throw error
    throw error.but({ hint: oldAgentHint })
  }
}

/** Changes extended attributes of a file and returns what it is then. */
export async function setAttributes(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  change: { path: string; set: GuestAttributes; remove: string[] },
): Promise<GuestFile> {
  const guest = await guestFor(core, account, nameOrId, [change.path])
  const setAndLook = async () => {
    await setIn(guest, change)
    return guest.ask({ op: "statFile", path: change.path }, { deadlineMs: answerDeadlineMs })
  }
  return explainedTransfer(core, guest, setAndLook())
}

export type Upload = {
  path: string
  mode: string | undefined
  /** A user of the guest, or a user and a group as in `chown`. */
  owner: string | undefined
  /** Extended attributes, set beside those of the replaced file. */
  attributes?: GuestAttributes | undefined
  /** Size announced by the client; a body of another length writes nothing. */
  size: number | undefined
  body: AsyncIterable<Uint8Array>
  /** Aborts the transfer. */
  signal: AbortSignal
}

export async function writeFile(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  upload: Upload,
): Promise<void> {
  if ((upload.size ?? 0) > limits.fileBytesMax) throw fileTooLarge()
  const guest = await guestFor(core, account, nameOrId, [upload.path])
  const write = async () => {
    const transfer = guest.open({
      op: "writeFile",
      path: upload.path,
      parents: true,
      ...(upload.mode !== undefined && { mode: upload.mode }),
      ...(upload.size !== undefined && { size: upload.size }),
      ...(await ownerIn(guest, upload.owner)),
      ...(await attributesIn(guest, upload.attributes)),
    })
    await send(transfer, upload, { bytesMax: limits.fileBytesMax })
  }
  await explainedTransfer(core, guest, write())
}

export async function writeArchive(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  upload: Pick<Upload, "path" | "owner" | "body" | "signal">,
): Promise<{ bytes: number; entries: number }> {
  const guest = await guestFor(core, account, nameOrId, [upload.path])
  const write = async () => {
    const owner = await ownerIn(guest, upload.owner)
    const transfer = guest.open({ op: "writeArchive", path: upload.path, ...owner })
    return send(transfer, upload, { bytesMax: Number.POSITIVE_INFINITY })
  }
  return explainedTransfer(core, guest, write())
}

/** Sends a body to the guest; if it ends early or is too large, the guest discards it. */
async function send(
  transfer: GuestTransfer,
  { body, signal }: Pick<Upload, "body" | "signal">,
  options: { bytesMax: number },
): Promise<{ bytes: number; entries: number }> {
  let bytes = 0
  // The guest may refuse before the body has ended; its refusal is then the answer.
  let refusal: { reason: unknown } | undefined
  /** Rejects the pending wait. */
  let breakOff: ((reason: unknown) => void) | undefined
  const refuse = (reason: unknown) => {
    refusal ??= { reason }
    breakOff?.(reason)
  }
  const orRefused = <T>(work: Promise<T>) =>
    new Promise<T>((resolve, reject) => {
      if (refusal) return reject(refusal.reason)
      breakOff = reject
      work.then(resolve, reject)
    })
  transfer.result.catch(refuse)
  const abort = () => refuse(signal.reason)
  signal.addEventListener("abort", abort, { once: true })
  if (signal.aborted) abort()
  try {
    const chunks = body[Symbol.asyncIterator]()
    for (;;) {
      const { done, value: chunk } = await orRefused(chunks.next())
      if (done) break
      bytes += chunk.length
      if (bytes > options.bytesMax) throw fileTooLarge()
      await orRefused(transfer.write(chunk))
    }
    transfer.endInput()
    return await orRefused(transfer.result)
  } catch (error) {
    giveUp(transfer)
    throw error
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

function giveUp(stream: GuestStream & { result: Promise<unknown> }): void {
  stream.result.catch(() => undefined)
  stream.close()
}

function fileTooLarge(): AppError {
  return new AppError("too_large", `a file has at most ${limits.fileBytesMax / 1024 / 1024} MB`, {
    hint: "split it, or send it in an archive, which has no such limit",
    subject: { kind: "file" },
  })
}
