/** The network rules of what fetches images, in the kernel. */

import { expect, test } from "bun:test"
import { RegistryEgress } from "./registry-egress.ts"
import { siteOf } from "./tap-network.ts"

const canRun = process.getuid?.() === 0 && Bun.which("nft") !== null
const dataDir = `/tmp/bhatti-egress-${process.pid}`
const table = `${siteOf(dataDir).table}_images`
const isThere = () => Bun.spawnSync(["nft", "list", "table", "inet", table]).exitCode === 0

test.skipIf(!canRun)(
  "the rules stay until the last program has ended, also when the daemon stops",
  async () => {
    const uids = [720_000 + (process.pid % 5000)]
    const egress = new RegistryEgress({
      ...{ dataDir, subnet: "10.222.0.0/16", opened: [], upstreams: [], uids, ownerMax: 2 },
    })
    const signal = new AbortController().signal
    const admission = await egress.admit(undefined, "usr_1", signal)
    const late = egress.admit(undefined, "usr_1", signal)
    egress.close()
    expect(isThere()).toBe(true)
    await admission[Symbol.asyncDispose]()
    await expect(late).rejects.toMatchObject({ code: "unavailable" })
    expect(isThere()).toBe(false)
  },
)
