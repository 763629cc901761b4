/** Lengths of time as people write them: `90`, `90s`, `5m`, `2h`, `1d`. */

import { WrongUsage } from "./wrong-usage.ts"

const secondsPer: Record<string, number> = { "": 1, s: 1, m: 60, h: 3600, d: 86_400 }

/** In seconds. */
export function readDuration(flag: string, text: string): number {
  const [, number, unit = ""] = /^(\d+(?:\.\d+)?)([smhd]?)$/.exec(text) ?? []
  if (number === undefined) {
    throw new WrongUsage(`${flag} takes a time such as 90, 5m, 2h or 1d, not "${text}"`)
  }
  return Number(number) * (secondsPer[unit] ?? 1)
}

/** A sandbox's own time until it is paused or written to disk; null: the host's. */
export function readThermalTime(flag: string, text: string): number | null {
  if (text === "default") return null
  return text === "never" ? 0 : readDuration(flag, text)
}

export const warmAfterText = { summary: "Idle time until it is paused: 90, 5m, never or default" }
export const coldAfterText = {
  summary: "Paused time until it is written to disk: 90, 5m, never or default",
}

export function thermalTimeText(seconds: number | null): string {
  if (seconds === null) return "default"
  return seconds === 0 ? "never" : `${seconds} s`
}
