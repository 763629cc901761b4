/** Reading apt's answers; no package is fetched here. */
import { expect, test } from "bun:test"
import { parseMetaPackage } from "./kernel-package.ts"

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
