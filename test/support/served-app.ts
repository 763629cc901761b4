/** An application behind a front of its own, as the daemon puts it there. */

import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { RateLimits } from "@bhatti/contract/config"
import type { Core } from "../../src/core/core.ts"
import type { App } from "../../src/http/app.ts"
import { listenPrivately } from "../../src/http/server.ts"
import { Front, type FrontOptions } from "../../src/proxy/front.ts"

export type ServedApp = AsyncDisposable & { front: Front; url: string; apiSocketPath: string }

/** `answer` takes the place of the application for requests that are no WebSockets. */
export function serveApp(
  core: Core,
  app: App,
  { answer = app, ...options }: Partial<FrontOptions> & { answer?: FrontOptions["api"]["answer"] } = {},
): ServedApp {
  const directory = mkdtempSync("/tmp/bhatti-app-")
  const apiSocketPath = join(directory, "api.sock")
  const sockets = listenPrivately(app, apiSocketPath, core.log)
  const front = new Front(core, {
    address: "127.0.0.1:0",
    zone: { domain: "localhost", apiHosts: [] },
    api: { answer, socketPath: apiSocketPath },
    trustedProxies: [],
    rateLimits: RateLimits.parse({}),
    ...options,
  })
  return {
    front,
    url: `${options.tls ? "https" : "http"}://127.0.0.1:${front.port}`,
    apiSocketPath,
    async [Symbol.asyncDispose]() {
      front.stop()
      await sockets.stop(true)
      rmSync(directory, { recursive: true, force: true })
    },
  }
}
