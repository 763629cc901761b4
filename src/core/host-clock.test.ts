/** The host's clock counts the time in which the host is on, and never jumps. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { openStore, type Store } from "../store/store.ts"
import { HostClock } from "./host-clock.ts"

let store: Store
let unixMs: number
let boot: { bootId: string; ms: number }
const clock = { unixMs: () => unixMs, sinceBoot: () => boot }

beforeEach(async () => {
  store = await openStore({ memory: true })
  unixMs = 1_700_000_000_000
  boot = { bootId: "one", ms: 5000 }
})
afterEach(() => store.close())

/** As the next daemon has it. */
const opened = () => new HostClock({ clock, store })

test("begins at the time of day, and then follows the kernel's clock, whoever sets the time of day", () => {
  const own = opened()
  expect(own.nowMs()).toBe(1_700_000_000_000)
  for (const jumpMs of [86_400_000, -864_000_000]) {
    unixMs += jumpMs
    boot = { ...boot, ms: boot.ms + 1000 }
  }
  expect(own.nowMs()).toBe(1_700_000_002_000)
  expect(own.isoAt(own.nowMs() + 5000)).toBe(new Date(unixMs + 5000).toISOString())
})

test("goes on over a restart of the daemon, with the time that no daemon ran", async () => {
  await opened().keep()
  boot = { ...boot, ms: 65_000 }
  unixMs = 0
  expect(opened().nowMs()).toBe(1_700_000_060_000)
})

test("stands still while the host is off, and loses at most the time since its last mark", async () => {
  const own = opened()
  await own.keep()
  boot = { ...boot, ms: 64_000 }
  // Less than a minute later nothing is written.
  await own.keep()
  unixMs += 864_000_000
  boot = { bootId: "two", ms: 20 }
  const next = opened()
  expect(next.nowMs()).toBe(1_700_000_000_000)
  await next.keep()
  boot = { bootId: "two", ms: 1020 }
  expect(opened().nowMs()).toBe(1_700_000_001_000)
})
