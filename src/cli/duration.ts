/** Lengths of time as people write them: `90`, `90s`, `5m`, `2h`, `1d`. */

import { WrongUsage } from "./wrong-usage.ts"

const secondsPer: Record<string, number> = { "": 1, s: 1, m: 60, h: 3600, d: 86_400 }

export const durationExamples = "90, 5m, 2h or 1d"

/** Returns undefined if the text is not a duration. */
export function durationSeconds(text: string): number | undefined {
  const [, number, unit = ""] = /^(\d*\.?\d+)([smhd]?)$/.exec(text) ?? []
  return number === undefined ? undefined : Number(number) * (secondsPer[unit] ?? 1)
}

/** Returns seconds. `words` names the alternatives that the caller accepts. */
export function readDuration(flag: string, text: string, words = ""): number {
  const seconds = durationSeconds(text)
  if (seconds !== undefined) return seconds
  throw new WrongUsage(`${flag} takes a time such as ${durationExamples}${words}, not "${text}"`)
}

/** A sandbox's own time until it is paused or written to disk; null means the host's. */
export function readThermalTime(flag: string, text: string): number | null {
  if (text === "default") return null
  return text === "never" ? 0 : readDuration(flag, text, ", never or default")
}

export const warmAfterText = { summary: "Idle time until it is paused: 90, 5m, never or default" }
export const coldAfterText = {
  summary: "Paused time until it is written to disk: 90, 5m, never or default",
}

export function thermalTimeText(seconds: number | null): string {
  if (seconds === null) return "default"
  if (seconds === 0) return "never"
  if (seconds % 3600 === 0) return `${seconds / 3600} h`
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`
}

/** A time to live; 0 means for ever. */
export function readTtl(text: string): number {
  if (text === "never") return 0
  return readDuration("--ttl", text, " or never")
}

export function ttlText(seconds: number | null): string {
  return thermalTimeText(seconds ?? 0)
}
