/** Watches of e2b's clients, as a stream or asked for again and again. */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { FileEvent } from "@bhatti/contract/guest"
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect"
import { createWatch, deleteWatch, followWatch, readWatch } from "../core/file-watches.ts"
import type { Caller } from "./caller.ts"
import { type Entry, entryAt } from "./file-entries.ts"
import { placeOf } from "./file-paths.ts"
import { keepaliveMs, withQuiet } from "./keepalive.ts"

export type WatchRequest = { path: string; recursive: boolean; includeEntry: boolean }
type Told = { name: string; type: number; entry?: Entry }

const types = { create: 1, write: 2, remove: 3, rename: 4, chmod: 5 } as const

const streamed = (name: string, value: object) => ({ event: { case: name, value } })

/** Yields the messages of the stream until its client leaves or its time is over. */
export async function* watchDirectory(
  caller: Caller,
  { path, recursive, includeEntry }: WatchRequest,
  { signal, requestHeader }: HandlerContext,
) {
  const { core, account, sandbox } = caller
  const place = await placeOf(caller, path)
  const steps = followWatch(core, account, sandbox, { directory: { path: place, recursive } }, signal)
  let isStarted = false
  try {
    for await (const step of withQuiet(steps, keepaliveMs(requestHeader))) {
      if (step === "quiet") yield streamed("keepalive", {})
      else if (step.kind === "watching") {
        // A boot of the sandbox has made another watch.
        if (!isStarted) yield streamed("start", {})
        isStarted = true
      } else if (step.kind === "event") {
        for (const told of await eventsOf(caller, step.event, { place, includeEntry }))
          yield streamed("filesystem", told)
      } else if (step.kind === "end") throw new AppError("unavailable", step.reason)
    }
  } catch (error) {
    if (!signal.aborted) throw error
    // The end of a client that has left interests nobody.
    if (signal.reason instanceof ConnectError) throw signal.reason
  }
}

/** A rename is the end of the old name and the beginning of the new one. The protocol has nothing for a loss. */
async function eventsOf(
  caller: Caller,
  { type, path, to, reason }: FileEvent,
  { place, includeEntry }: { place: string; includeEntry: boolean },
): Promise<Told[]> {
  if (type === "lost") throw new ConnectError(`events were lost: ${reason}`, Code.DataLoss)
  const entryOf = async (name: string) => {
    const entry = includeEntry ? await existing(caller, posix.join(place, name)) : undefined
    return entry ? { entry } : {}
  }
  if (to !== null)
    return [
      { name: path, type: types.rename },
      { name: to, type: types.create, ...(await entryOf(to)) },
    ]
  return [{ name: path, type: types[type], ...(type !== "remove" && (await entryOf(path))) }]
}

/** Returns undefined if the file is gone, as after a later change. */
async function existing(caller: Caller, path: string): Promise<Entry | undefined> {
  return entryAt(caller, path).catch((error: unknown) => {
    if (error instanceof AppError && ["not_found", "invalid"].includes(error.code)) return undefined
    throw error
  })
}

/** So many watchers have their place remembered; one that is forgotten tells some events again. */
const placesMax = 10_000

type Watcher = { watch: string; place: string; includeEntry: boolean }

/**
 * Watchers that their clients ask for events. The watch is the guest's, and the id has the rest; only the place of
 * the reader is kept here, since the guest has what a daemon after a restart would ask for again.
 */
export class Watchers {
  readonly #places = new Map<string, number>()

  async create(caller: Caller, { path, recursive, includeEntry }: WatchRequest): Promise<string> {
    const { core, account, sandbox } = caller
    const place = await placeOf(caller, path)
    const { watch } = await createWatch(core, account, sandbox, { path: place, recursive })
    const id = encode({ watch, place, includeEntry })
    this.#remember(`${sandbox} ${id}`, 0)
    return id
  }

  async read(caller: Caller, id: string): Promise<Told[]> {
    const { core, account, sandbox } = caller
    const { watch, place, includeEntry } = decode(id)
    const key = `${sandbox} ${id}`
    const told: Told[] = []
    for (;;) {
      const after = this.#places.get(key) ?? 0
      const { events, next } = await readWatch(core, account, sandbox, { watch, after })
      if (events.length === 0) return told
      this.#remember(key, next)
      for (const event of events) told.push(...(await eventsOf(caller, event, { place, includeEntry })))
      if (told.length >= toldMax) return told
    }
  }

  async remove({ core, account, sandbox }: Caller, id: string): Promise<void> {
    await deleteWatch(core, account, sandbox, decode(id).watch)
    this.#places.delete(`${sandbox} ${id}`)
  }

  #remember(key: string, after: number): void {
    this.#places.delete(key)
    this.#places.set(key, after)
    for (const oldest of this.#places.keys()) {
      if (this.#places.size <= placesMax) return
      this.#places.delete(oldest)
    }
  }
}

/** An answer has about so many events; the next answer has the rest. */
const toldMax = 5000

function encode({ watch, place, includeEntry }: Watcher): string {
  return Buffer.from(JSON.stringify([watch, includeEntry, place])).toString("base64url")
}

function decode(id: string): Watcher {
  try {
    const [watch, includeEntry, place] = JSON.parse(Buffer.from(id, "base64url").toString()) as unknown[]
    if (typeof watch === "string" && typeof place === "string" && typeof includeEntry === "boolean")
      return { watch, place, includeEntry }
  } catch {
    // It is refused below.
  }
  throw new AppError("not_found", "no such watcher")
}
