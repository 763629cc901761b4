/** Runs the suite of `test/support/store-suite.ts` on SQLite, in memory and in a file. */

import { afterAll } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { imageStoreSuite } from "../../test/support/image-store-suite.ts"
import { storeSuite } from "../../test/support/store-suite.ts"
import { openStore } from "./store.ts"

const dataDir = mkdtempSync("/tmp/bhatti-store-suite-")
afterAll(() => rmSync(dataDir, { recursive: true }))

storeSuite("SQLite in memory", () => openStore({ memory: true }))
storeSuite("SQLite in a file", () => openStore({ dataDir }))
imageStoreSuite("SQLite in memory", () => openStore({ memory: true }))
