/** Settings of a sandbox that create and edit take alike, and inspect shows. A further one is added here alone. */

import type { Sandbox } from "@bhatti/contract/sandbox"
import { optionFlag } from "./arguments.ts"
import { coldAfterText, readThermalTime, thermalTimeText, warmAfterText } from "./duration.ts"

export const settingOptions = {
  warmAfter: { type: "text", value: "TIME", ...warmAfterText },
  coldAfter: { type: "text", value: "TIME", ...coldAfterText },
  description: { type: "text", value: "TEXT", summary: 'Its purpose, in a line; "" for none' },
} as const

export const settingNames = Object.keys(settingOptions) as (keyof typeof settingOptions)[]
/** As a hint lists them. */
export const settingFlags = settingNames.map(optionFlag).join(", ")

type Given = { readonly [Name in keyof typeof settingOptions]: string | undefined }

/** The given settings as the API takes them; null sets back to the default. */
export function settingsOf({ warmAfter, coldAfter, description }: Given) {
  return {
    ...(warmAfter !== undefined && { warm_after: readThermalTime("--warm-after", warmAfter) }),
    ...(coldAfter !== undefined && { cold_after: readThermalTime("--cold-after", coldAfter) }),
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
    ...(sandbox.description ? [["description", sandbox.description] as const] : []),
  ]
}
