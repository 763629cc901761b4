/**
 * The HTTP interface through its real application and a real store, on a fake host, with one user who may have much.
 */

import { RateLimits } from "@bhatti/contract/config"
import { newCore } from "../../src/core/assemble.ts"
import type { Log } from "../../src/core/bounded-log.ts"
import type { Clock } from "../../src/core/clock.ts"
import type { Core, CoreSettings } from "../../src/core/core.ts"
import { OperatorUsers } from "../../src/core/users.ts"
import { createE2b } from "../../src/e2b/app.ts"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { type App, createApp } from "../../src/http/app.ts"
import type { Downloads } from "../../src/http/install.ts"
import type { About } from "../../src/http/routes/system.ts"
import type { CertificatePaths } from "../../src/proxy/certificate.ts"
import type { PoolSettings } from "../../src/rules/pool.ts"
import { openStore } from "../../src/store/store.ts"
import { beside } from "../../src/surfaces.ts"
import { type FakeHost, fakeHost } from "./fake-host.ts"
import { serveApp } from "./served-app.ts"

export type Answer = { status: number; body: unknown; text: string; headers: Headers }

export type HttpApp = AsyncDisposable & {
  core: Core
  host: FakeHost
  url: string
  key: string
  /** Clients' connections that are open now. */
  connections(): number
  /** Has the front end what has waited too long, as if so much time had passed. */
  laterBy(ms: number): void
  call(
    method: string,
    path: string,
    body?: unknown,
    as?: string | { key?: string; requestId?: string },
  ): Promise<Answer>
}

export type HttpAppOptions = {
  metricsToken?: string
  clock?: Clock
  pool?: PoolSettings
  lifetimes?: CoreSettings["lifetimes"]
  downloads?: Downloads
  log?: Log
  tls?: CertificatePaths
  /** The certificate of the authority that has signed its own. */
  caFile?: string
  trustedProxies?: string[]
  publicAddress?: CoreSettings["publicAddress"]
  about?: Partial<About>
  apiHosts?: string[]
  allowedOrigins?: string[]
  rateLimits?: RateLimits
  maxSandboxes?: number
  e2b?: boolean
  /** Puts something between the front and the application. */
  wrapApp?: (app: App) => App
}

export async function openHttpApp(options: HttpAppOptions = {}): Promise<HttpApp> {
  const { trustedProxies = [], publicAddress = { scheme: "http", domain: "localhost", port: 8080 } } = options
  const host = fakeHost()
  const store = await openStore({ memory: true })
  const core = newCore({
    store,
    host,
    log: options.log ?? { info() {}, warn() {}, error() {} },
    ...(options.clock && { clock: options.clock }),
    settings: {
      thermal: { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 },
      diskReserveMib: 1024,
      memoryReserveMib: 512,
      templateDiskMib: 8192,
      pool: options.pool ?? { sizeMax: 0, memoryMibMax: 0 },
      publicAddress,
      guestDefaults: {},
      ...(options.lifetimes && { lifetimes: options.lifetimes }),
    },
  })
  const { rateLimits = RateLimits.parse({}) } = options
  const app = createApp(
    core,
    { version: "0.0.0", accelerator: "tcg", acceleratorReason: "test", warnings: [], ...options.about },
    {
      apiHosts: [publicAddress.domain, ...(options.apiHosts ?? [])],
      allowedOrigins: options.allowedOrigins ?? [],
      rates: new RequestRates(rateLimits),
      metricsToken: options.metricsToken,
      trustedProxies,
      ...(options.downloads && { install: { downloads: options.downloads, rate: rateLimits.install } }),
    },
  )
  const rates = new RequestRates(rateLimits)
  const e2b = options.e2b ? createE2b(core, { apiHosts: [publicAddress.domain], rates }) : undefined
  const served = serveApp(core, options.wrapApp?.(app) ?? app, {
    ...(e2b && { answer: beside(app, e2b) }),
    tls: options.tls,
    trustedProxies,
    zone: {
      domain: "localhost",
      apiHosts: options.apiHosts ?? [],
      ...e2b?.names,
    },
  })
  const { key } = await new OperatorUsers(store).create({
    name: "alice",
    maxSandboxes: options.maxSandboxes ?? 50,
  })
  const { url } = served
  return {
    core,
    host,
    url,
    key,
    connections: () => served.front.connectionCount,
    laterBy: (ms) => served.front.check(performance.now() + ms),
    async call(method, path, body, as = {}) {
      const { key: own = key, requestId } = typeof as === "string" ? { key: as } : as
      const response = await fetch(`${url}${path}`, {
        method,
        headers: { authorization: `Bearer ${own}`, ...(requestId && { "x-request-id": requestId }) },
        ...(options.caFile !== undefined && { tls: { ca: Bun.file(options.caFile) } }),
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      const isJson = response.headers.get("content-type")?.includes("json") ?? false
      return {
        status: response.status,
        body: isJson ? JSON.parse(text) : undefined,
        text,
        headers: response.headers,
      }
    },
    async [Symbol.asyncDispose]() {
      core.events.close()
      await served[Symbol.asyncDispose]()
      await core.events.flush()
      await store.close()
    },
  }
}
