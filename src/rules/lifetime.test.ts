/** When a lifetime is announced and when it ends. */

import { describe, expect, test } from "bun:test"
import { decideLifetime, defaultsOf, type LifetimeSettings, timesFrom } from "./lifetime.ts"

const settings: LifetimeSettings = {
  ...{ ttlMs: 0, onTtl: "pause", stoppedRetentionMs: 0, warningMs: 60_000, graceMs: 30_000 },
  users: { alice: { ttlMs: 5000, onTtl: "destroy" } },
}
const startMs = 1_000_000
const begun = (ttlMs: number) => timesFrom(startMs, { ttlMs, warningMs: settings.warningMs })

test("a lifetime is announced a minute before its end, and one of less than two minutes at its half", () => {
  expect(begun(7_200_000)).toEqual({ warnAtMs: startMs + 7_140_000, endsAtMs: startMs + 7_200_000 })
  expect(begun(10_000)).toEqual({ warnAtMs: startMs + 5000, endsAtMs: startMs + 10_000 })
})

describe("a decision", () => {
  const times = begun(10_000)
  const decide = (afterMs: number, warnedAfterMs: number | null, isBusy = false) =>
    decideLifetime(
      {
        ...times,
        nowMs: startMs + afterMs,
        warnedAtMs: warnedAfterMs === null ? null : startMs + warnedAfterMs,
        isBusy,
      },
      settings,
    )

  test("waits for the announcement, announces, waits for the end, and ends", () => {
    expect(decide(4999, null)).toEqual({ kind: "wait", untilMs: startMs + 5000 })
    expect(decide(5000, null)).toEqual({ kind: "warn", endsAtMs: startMs + 10_000 })
    expect(decide(9999, 5000)).toEqual({ kind: "wait", untilMs: startMs + 10_000 })
    expect(decide(10_000, 5000)).toEqual({ kind: "end" })
  })

  test("that comes late announces first, and leaves as much time as ever between the two", () => {
    expect(decide(900_000, null)).toEqual({ kind: "warn", endsAtMs: startMs + 905_000 })
    expect(decide(904_999, 900_000)).toMatchObject({ kind: "wait" })
    expect(decide(905_000, 900_000)).toEqual({ kind: "end" })
  })

  test("leaves clients that are connected the grace since the announcement, and no more", () => {
    expect(decide(10_000, 5000, true)).toEqual({ kind: "wait", untilMs: startMs + 35_000 })
    expect(decide(35_000, 5000, true)).toEqual({ kind: "end" })
  })
})

test("a user has the host's defaults but for the user's own", () => {
  expect(defaultsOf(settings, "bob")).toEqual({ ttlMs: 0, onTtl: "pause", stoppedRetentionMs: 0 })
  expect(defaultsOf(settings, "alice")).toEqual({ ttlMs: 5000, onTtl: "destroy", stoppedRetentionMs: 0 })
  expect(defaultsOf(settings, "constructor")).toMatchObject({ ttlMs: 0 })
})
