/** The real application on a fake host, listening on a port of its own. */

import { RateLimits } from "@bhatti/contract/config"
import { newCore } from "../../src/core/assemble.ts"
import type { Log } from "../../src/core/bounded-log.ts"
import type { Core } from "../../src/core/core.ts"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { createApp } from "../../src/http/app.ts"
import { openStore } from "../../src/store/store.ts"
import { type FakeHost, fakeHost } from "../support/fake-host.ts"
import { serveApp } from "../support/served-app.ts"

export type Served = AsyncDisposable & {
  core: Core
  host: FakeHost
  url: string
}

const silent: Log = { info() {}, warn() {}, error() {} }

/** Without a data directory the database is in memory. */
export async function serveOnFakeHost(
  options: { dataDir?: string; log?: Log; isRateLimited?: boolean } = {},
): Promise<Served> {
  const host = fakeHost()
  const store = await openStore(
    options.dataDir === undefined ? { memory: true } : { dataDir: options.dataDir },
  )
  const core = newCore({
    store,
    host,
    log: options.log ?? silent,
    settings: {
      thermal: { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 },
      diskReserveMib: 1024,
      memoryReserveMib: 512,
      templateDiskMib: 8192,
      pool: { sizeMax: 0, memoryMibMax: 0 },
      publicAddress: { scheme: "http", domain: "localhost", port: 8080 },
      guestDefaults: {},
    },
  })
  const about = { version: "0.0.0", accelerator: "tcg" as const, acceleratorReason: "test", warnings: [] }
  const rate = { burst: 1_000_000, per_minute: 60_000_000 }
  const rates = new RequestRates(
    RateLimits.parse(options.isRateLimited === false ? { create: rate, exec: rate, other: rate } : {}),
  )
  const app = createApp(core, about, { apiHosts: [], rates })
  const served = serveApp(core, app)
  return {
    core,
    host,
    url: served.url,
    async [Symbol.asyncDispose]() {
      await served[Symbol.asyncDispose]()
      await store.close()
    },
  }
}
