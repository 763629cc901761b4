/** The filesystem service of e2b's agent. */

import { posix } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import type { HandlerContext } from "@connectrpc/connect"
import { askGuest } from "../core/ask-guest.ts"
import { makeDirectory } from "../core/files.ts"
import type { Caller } from "./caller.ts"
import { entriesBelow, entryAt, findAt, statAt } from "./file-entries.ts"
import { placeOf } from "./file-paths.ts"
import { Watchers, type WatchRequest, watchDirectory } from "./file-watches.ts"

type Path = { path: string }

/** The service for the caller of this request. */
export function filesystemHandlers(callerOf: (context: HandlerContext) => Caller) {
  const watchers = new Watchers()
  return {
    async stat({ path }: Path, context: HandlerContext) {
      const caller = callerOf(context)
      return { entry: await entryAt(caller, await placeOf(caller, path)) }
    },

    async makeDir({ path }: Path, context: HandlerContext) {
      const caller = callerOf(context)
      const place = await placeOf(caller, path)
      if (await isDirectory(caller, place)) throw new AppError("conflict", `directory "${place}" exists`)
      // A conflict would be taken for a directory that is there already.
      if (await findAt(caller, place)) throw new AppError("invalid", `"${place}" is not a directory`)
      await makeAt(caller, place)
      return { entry: await entryAt(caller, place) }
    },

    async move({ source, destination }: { source: string; destination: string }, context: HandlerContext) {
      const caller = callerOf(context)
      const { core, account, sandbox } = caller
      const from = await placeOf(caller, source)
      const to = await placeOf(caller, destination)
      await statAt(caller, from)
      // Our own rename would move it into that directory.
      if (await isDirectory(caller, to)) throw new AppError("conflict", `"${to}" is a directory`)
      await makeAt(caller, posix.dirname(to))
      await askGuest(core, account, sandbox, { op: "moveFile", from, to })
      return { entry: await entryAt(caller, to) }
    },

    async listDir({ path, depth }: Path & { depth: number }, context: HandlerContext) {
      const caller = callerOf(context)
      return { entries: await entriesBelow(caller, await placeOf(caller, path), depth) }
    },

    async remove({ path }: Path, context: HandlerContext) {
      const caller = callerOf(context)
      const { core, account, sandbox } = caller
      const place = await placeOf(caller, path)
      if (await findAt(caller, place))
        await askGuest(core, account, sandbox, { op: "removeFile", path: place, recursive: true })
      return {}
    },

    async *watchDir(request: WatchRequest, context: HandlerContext) {
      yield* watchDirectory(callerOf(context), request, context)
    },

    async createWatcher(request: WatchRequest, context: HandlerContext) {
      return { watcherId: await watchers.create(callerOf(context), request) }
    },

    async getWatcherEvents({ watcherId }: { watcherId: string }, context: HandlerContext) {
      return { events: await watchers.read(callerOf(context), watcherId) }
    },

    async removeWatcher({ watcherId }: { watcherId: string }, context: HandlerContext) {
      await watchers.remove(callerOf(context), watcherId)
      return {}
    },
  }
}

/** Follows a link. */
async function isDirectory(caller: Caller, path: string): Promise<boolean> {
  return (await findAt(caller, path)) !== undefined && (await entryAt(caller, path)).type === 2
}

async function makeAt({ core, account, sandbox, user }: Caller, path: string): Promise<void> {
  await makeDirectory(core, account, sandbox, { path, parents: true, mode: "0755", owner: user })
}
