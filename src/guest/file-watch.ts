/** Answers about watches of directories. */

import { type FileEvent, type FileEvents, fileEventTypes } from "@bhatti/contract/guest"
import { WireError } from "./frame.ts"
import { isObject } from "./message.ts"

/** A path of the guest, with room for what replaces bytes that are no UTF-8. */
const pathCharactersMax = 16_384
const reasonCharactersMax = 500

export function parseWatching(value: unknown): { watch: string } {
  if (isObject(value) && typeof value.watch === "string" && /^[a-z0-9]{1,64}$/.test(value.watch))
    return { watch: value.watch }
  throw new WireError("the guest's answer to file_watch cannot be read")
}

/** The last event has the number `next`, the others those before it. */
export function parseFileEvents(value: unknown): FileEvents {
  if (isObject(value) && Array.isArray(value.events)) {
    const { events, next, ended = null } = value
    const first = typeof next === "number" && Number.isSafeInteger(next) ? next - events.length + 1 : -1
    if (typeof next === "number" && first >= 0 && (ended === null || isText(ended, reasonCharactersMax)))
      return { events: events.map((event, at) => parseEvent(event, first + at)), next, ended }
  }
  throw unreadable()
}

function parseEvent(value: unknown, sequence: number): FileEvent {
  if (!isObject(value)) throw unreadable()
  const { path, to = null, directory: isDirectory = false, reason = null } = value
  const type = fileEventTypes.find((known) => known === value.type)
  if (
    type !== undefined &&
    isText(path, pathCharactersMax) &&
    (to === null || isText(to, pathCharactersMax)) &&
    (type === "rename") === (to !== null) &&
    typeof isDirectory === "boolean" &&
    (reason === null || isText(reason, reasonCharactersMax))
  )
    return { type, path, to, isDirectory, reason, sequence }
  throw unreadable()
}

function isText(value: unknown, charactersMax: number): value is string {
  return typeof value === "string" && value.length <= charactersMax
}

function unreadable(): WireError {
  return new WireError("the guest's answer to file_watch_read cannot be read")
}
