/** Settings of a sandbox that create and edit take alike, and inspect shows. A further one is added here alone. */

import { TtlEnd } from "@bhatti/contract/lifetime"
import type { Sandbox } from "@bhatti/contract/sandbox"
import { optionFlag } from "./arguments.ts"
import {
  coldAfterText,
  readThermalTime,
  readTtl,
  thermalTimeText,
  ttlText,
  warmAfterText,
} from "./duration.ts"

export const settingOptions = {
  warmAfter: { type: "text", value: "TIME", ...warmAfterText },
  coldAfter: { type: "text", value: "TIME", ...coldAfterText },
  ttl: { type: "text", value: "TIME", summary: "Time to live from now on: 90, 5m, 2h or never" },
  onTtl: {
    type: "choice",
    value: "END",
    choices: TtlEnd.options,
    summary: "The end of its time to live",
  },
  description: { type: "text", value: "TEXT", summary: 'Its purpose, in a line; "" for none' },
} as const

export const settingNames = Object.keys(settingOptions) as (keyof typeof settingOptions)[]
/** As a hint lists them. */
export const settingFlags = settingNames.map(optionFlag).join(", ")

type Given = { readonly [Name in Exclude<keyof typeof settingOptions, "onTtl">]: string | undefined } & {
  readonly onTtl: TtlEnd | undefined
}

/** The given settings as the API takes them; null sets back to the default. */
export function settingsOf({ warmAfter, coldAfter, ttl, onTtl, description }: Given) {
  return {
    ...(warmAfter !== undefined && { warm_after: readThermalTime("--warm-after", warmAfter) }),
    ...(coldAfter !== undefined && { cold_after: readThermalTime("--cold-after", coldAfter) }),
    ...(ttl !== undefined && { ttl: readTtl(ttl) }),
    ...(onTtl !== undefined && { on_ttl: onTtl }),
    ...(description !== undefined && { description: description === "" ? null : description }),
  }
}

type Settings = ReturnType<typeof settingsOf>

/** The same for a new sandbox, which has the defaults already. */
export function newSettingsOf(given: Given) {
  const settings = Object.entries(settingsOf(given)).filter(([, value]) => value !== null)
  return Object.fromEntries(settings) as { [Name in keyof Settings]?: NonNullable<Settings[Name]> }
}

export function settingLines(sandbox: Sandbox): (readonly [string, string])[] {
  return [
    ["warm after", thermalTimeText(sandbox.warm_after)],
    ["cold after", thermalTimeText(sandbox.cold_after)],
    ...ttlLines(sandbox),
    ...(sandbox.description ? [["description", sandbox.description] as const] : []),
  ]
}

/** A daemon of an earlier version does not tell. */
function ttlLines({ ttl, on_ttl, ends_at }: Partial<Sandbox>): (readonly [string, string])[] {
  if (ttl === undefined || ttl === null) return []
  return [
    ["ttl", ttlText(ttl)],
    ["on ttl", on_ttl ?? "pause"],
    ["ends", ends_at ?? "its time is over"],
  ]
}
