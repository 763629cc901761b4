/**
 * Packs the npm packages, as somebody installs them, into a directory: the contract and the SDK, which depends on it.
 *
 *     bun run scripts/packages.ts --out DIR
 */

import { mkdir } from "node:fs/promises"
import { join, resolve } from "node:path"
import { parseArgs } from "node:util"

const root = join(import.meta.dir, "..")
const { values } = parseArgs({ options: { out: { type: "string", default: join(root, "dist/packages") } } })
const out = resolve(values.out)

await mkdir(out, { recursive: true })
// In this order: the SDK's build needs the contract's types.
for (const folder of ["contract", "sdk/typescript"]) {
  const packing = ["npm", "pack", "--loglevel=error", "--pack-destination", out]
  const child = Bun.spawn(packing, { cwd: join(root, folder), stdio: ["ignore", "inherit", "inherit"] })
  if ((await child.exited) !== 0) throw new Error(`${folder} was not packed`)
}
