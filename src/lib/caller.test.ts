/** Whose settings are read and written under sudo. */

import { afterEach, beforeEach, expect, test } from "bun:test"
import { chownSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { findCaller } from "./caller.ts"

const isRoot = process.getuid?.() === 0
let home = ""
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "bhatti-caller-"))
})
afterEach(() => rmSync(home, { recursive: true }))

test("without sudo the process's own home counts", () => {
  expect(findCaller({ HOME: home })).toEqual({ home, owner: undefined })
  expect(findCaller({ HOME: home, SUDO_USER: "root" })).toEqual({ home, owner: undefined })
})

test.skipIf(!isRoot)("under sudo the caller's home and ids are those of the host's list of users", () => {
  const found = findCaller({ HOME: "/root", SUDO_USER: "daemon", SUDO_UID: "7", SUDO_GID: "7" })
  expect(found).toEqual({ home: "/usr/sbin", owner: { uid: 1, gid: 1 } })
})

test.skipIf(!isRoot)(
  "a caller who is on no such list, as on macOS, is found by the home that is theirs",
  () => {
    chownSync(home, 501, 20)
    const sudo = { SUDO_USER: "somebody-else", SUDO_UID: "501", SUDO_GID: "20" }
    expect(findCaller({ HOME: home, ...sudo })).toEqual({ home, owner: { uid: 501, gid: 20 } })
    // Another's directory is not written to as if it were theirs.
    expect(findCaller({ HOME: "/root", ...sudo })).toEqual({ home: "/root", owner: undefined })
    expect(findCaller({ HOME: home, ...sudo, SUDO_UID: "x" })).toEqual({ home, owner: undefined })
  },
)
