/** Checks a filter of events: a misspelt type would find nothing, silently. */

import { AppError } from "@bhatti/contract/errors"
import { eventTypes } from "@bhatti/contract/event-types"
import { suggest } from "./suggest.ts"

/** The beginnings that a filter usually names: `sandbox.`, `thermal.` and so on. */
export const eventPrefixes: readonly string[] = [
  ...new Set(eventTypes.map((type) => `${type.split(".")[0]}.`)),
]

/** Throws if no type of event begins so. */
export function checkEventType(prefix: string | undefined): void {
  if (prefix === undefined || eventTypes.some((type) => type.startsWith(prefix))) return
  const [group = ""] = prefix.split(".")
  const similar =
    suggest(prefix, eventTypes) ??
    suggest(`${group}.`, eventPrefixes) ??
    (eventPrefixes.includes(`${group}.`) ? undefined : suggest(group, eventPrefixes))
  const inGroup = eventTypes.filter((type) => type.startsWith(`${group}.`))
  const list = `there are ${(inGroup.length > 0 ? inGroup : eventPrefixes).join(", ")}`
  throw new AppError("invalid", `no type of event begins with "${prefix}"`, {
    hint: similar === undefined ? list : `did you mean ${similar}? ${list}`,
  })
}
