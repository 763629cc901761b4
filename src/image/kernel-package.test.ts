/** Reading apt's answers; no package is fetched here. */
import { expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { findModulesInLib, parseMetaPackage } from "./kernel-package.ts"

test("the meta package names the real one and its exact version", () => {
  const stanza = `Package: linux-image-cloud-amd64
Version: 6.1.27-1
Depends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.27-1)
Description: Linux for x86-64 cloud (meta-package)
`
  expect(parseMetaPackage(stanza)).toEqual({
    name: "linux-image-6.1.0-9-cloud-amd64",
    packageVersion: "6.1.27-1",
  })
})

test("no answer from apt is no package", () => {
  expect(parseMetaPackage("")).toBeUndefined()
})

test.each(["usr/lib", "lib"])("modules that a package has below %s are found below lib", async (place) => {
  const unpacked = mkdtempSync("/tmp/bhatti-unpacked-")
  try {
    mkdirSync(join(unpacked, place, "modules/6.12.1"), { recursive: true })
    await findModulesInLib(unpacked)
    expect(readdirSync(join(unpacked, "lib/modules"))).toEqual(["6.12.1"])
  } finally {
    rmSync(unpacked, { recursive: true })
  }
})
