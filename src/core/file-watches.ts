/**
 * Watches of directories in sandboxes. A watch lives in the guest with the events that its reader has not confirmed, so
 * a lost connection, a pause, a stop and a daemon's restart lose none. A sandbox that stands still has no events,
 * so following a watch neither wakes a sandbox nor keeps it awake: it waits until somebody else uses it.
 */

import { AppError } from "@bhatti/contract/errors"
import type { FileEvent, FileEvents } from "@bhatti/contract/guest"
import { checkGuestPath } from "../rules/input.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import { answerDeadlineMs, awakeGuest } from "./awake.ts"
import { sleep } from "./clock.ts"
import type { ForRequest } from "./core.ts"
import { findSandbox } from "./find.ts"
import type { Guest } from "./host.ts"
import { unlessAborted } from "./unless-aborted.ts"

/** Opening tens of thousands of directories takes an emulated guest a while. */
const openDeadlineMs = 60_000
/** A wait in the guest ends after this time, so that one for a guest that was paused meanwhile is not forgotten. */
const waitMs = 30_000
const againMs = 500
const what = "a watch of files"
const deadline = { deadlineMs: answerDeadlineMs }

export type WatchedDirectory = { path: string; recursive: boolean }

export async function createWatch(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  directory: WatchedDirectory,
): Promise<{ watch: string }> {
  return openWatch(await awakeGuest(core, account, nameOrId, what), directory)
}

/** Everything that has happened until now, behind the event that the reader has. */
export async function readWatch(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  { watch, after }: { watch: string; after: number },
): Promise<FileEvents> {
  const guest = await awakeGuest(core, account, nameOrId, what)
  return guest.ask({ op: "readWatch", watch, after }, deadline)
}

/** In a sandbox that stands still nothing is done: there the watch ends by itself later. */
export async function deleteWatch(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  watch: string,
): Promise<void> {
  const { id } = await findSandbox(core, account, nameOrId)
  const guest = await runningGuest(core, id)
  if (guest !== undefined && guest !== "destroyed") await guest.ask({ op: "removeWatch", watch }, deadline)
}

export type WatchStep =
  | { kind: "watching"; watch: string }
  | { kind: "event"; event: FileEvent }
  | { kind: "quiet" }
  | { kind: "end"; reason: string }

/**
 * Yields the events of a directory, or of a watch that exists, until the signal aborts. The watch of a directory is
 * removed in the end. A boot of the sandbox ends its watches; then a new one takes its place and the loss is told.
 */
export async function* followWatch(
  core: ForRequest,
  account: Account,
  nameOrId: string,
  from: { directory: WatchedDirectory } | { watch: string; after: number },
  signal: AbortSignal,
): AsyncGenerator<WatchStep> {
  const record = await findSandbox(core, account, nameOrId)
  const first = await awakeGuest(core, account, record.id, what)
  const own = "directory" in from ? from.directory : undefined
  let { watch, after } =
    "directory" in from ? { ...(await openWatch(first, from.directory)), after: 0 } : from
  try {
    // A watch that is gone is the answer to the request, not the end of a stream.
    if (!own) await first.ask({ op: "readWatch", watch, after }, deadline)
    yield { kind: "watching", watch }
    for (;;) {
      const step = await nextStep(core, record.id, { watch, after }, signal)
      if (step === "gone" && own) {
        const guest = await runningGuest(core, record.id)
        if (guest === undefined || guest === "destroyed") continue
        watch = (await openWatch(guest, own)).watch
        after = 0
        yield { kind: "event", event: lostAtBoot }
        yield { kind: "watching", watch }
      } else if (step === "gone") {
        throw new AppError("not_found", "the watch is gone: the sandbox was booted anew", {
          hint: "watch the directory again",
        })
      } else if (step === "destroyed") {
        return yield { kind: "end", reason: "the sandbox was destroyed" }
      } else if (step === "quiet") {
        yield { kind: "quiet" }
      } else {
        for (const event of step.events) yield { kind: "event", event }
        after = step.next
        if (step.ended !== null) return yield { kind: "end", reason: step.ended }
      }
    }
  } finally {
    if (own) void removeQuietly(core, record.id, watch)
  }
}

const lostAtBoot: FileEvent = {
  type: "lost",
  path: ".",
  to: null,
  isDirectory: true,
  reason: "the sandbox was booted anew",
  sequence: 0,
}

/** Waits for events, or for a while. */
async function nextStep(
  core: ForRequest,
  id: SandboxRecord["id"],
  place: { watch: string; after: number },
  signal: AbortSignal,
): Promise<FileEvents | "quiet" | "gone" | "destroyed"> {
  const endMs = core.clock.nowMs() + waitMs
  while (core.clock.nowMs() < endMs) {
    const guest = await runningGuest(core, id)
    if (guest === "destroyed") return "destroyed"
    if (guest) {
      try {
        const wait = guest.ask({ op: "awaitWatch", ...place }, { deadlineMs: waitMs })
        const answer = await unlessAborted(wait, signal)
        if (answer.events.length > 0 || answer.ended !== null) return answer
      } catch (error) {
        signal.throwIfAborted()
        if (!(error instanceof AppError)) throw error
        if (error.code === "not_found") return "gone"
        // The channel was lost, or the guest is about to be saved or to get its identity.
        if (error.code !== "unavailable" && error.code !== "conflict") throw error
      }
    }
    await sleep(core.clock, againMs, signal)
    signal.throwIfAborted()
  }
  return "quiet"
}

/** Returns undefined if the sandbox stands still. */
async function runningGuest(
  core: ForRequest,
  id: SandboxRecord["id"],
): Promise<Guest | "destroyed" | undefined> {
  const record = await core.store.sandboxes.get(id)
  if (!record || record.state.kind === "destroying") return "destroyed"
  return record.state.kind === "hot" ? core.guests.get(id) : undefined
}

async function openWatch(guest: Guest, directory: WatchedDirectory): Promise<{ watch: string }> {
  checkGuestPath(directory.path)
  try {
    return await guest.ask({ op: "openWatch", ...directory }, { deadlineMs: openDeadlineMs })
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "unavailable") throw error
    throw error.but({
      hint: "a sandbox that has run since before an update of bhatti cannot watch files until it is restarted",
    })
  }
}

async function removeQuietly(core: ForRequest, id: SandboxRecord["id"], watch: string): Promise<void> {
  try {
    const guest = await runningGuest(core, id)
    if (guest !== undefined && guest !== "destroyed") await guest.ask({ op: "removeWatch", watch }, deadline)
  } catch (error) {
    core.log.info({ sandbox: id, error }, "a watch of files was not removed")
  }
}
