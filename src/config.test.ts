/** Where the daemon's configuration comes from. */

import { expect, test } from "bun:test"
import { loadConfig } from "./config.ts"
import { AppError } from "./contract/errors.ts"

test("an empty BHATTI_CONFIG counts as none, one that names a missing file is an error", () => {
  const dataDir = "/nonexistent"
  expect(loadConfig({ dataDir }, { BHATTI_CONFIG: "" })).toEqual(loadConfig({ dataDir }, {}))
  expect(() => loadConfig({ dataDir }, { BHATTI_CONFIG: "/nonexistent/named.yaml" })).toThrow(AppError)
})
