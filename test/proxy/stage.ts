/** A front with a published sandbox on a fake host; the sandbox's port is a TCP server on this machine. */

import { RateLimits } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import { newCore } from "../../src/core/assemble.ts"
import type { Core } from "../../src/core/core.ts"
import { createSandbox } from "../../src/core/create.ts"
import type { GuestConnection } from "../../src/core/host.ts"
import { RequestRates } from "../../src/gate/request-rates.ts"
import { createApp } from "../../src/http/app.ts"
import type { Front } from "../../src/proxy/front.ts"
import { SocketPeer } from "../../src/proxy/peer.ts"
import type { Zone } from "../../src/proxy/routing.ts"
import { openStore } from "../../src/store/store.ts"
import type { Account } from "../../src/store/users.ts"
import { type FakeHost, fakeHost } from "../support/fake-host.ts"
import { serveApp } from "../support/served-app.ts"

export type Stage = AsyncDisposable & {
  core: Core
  host: FakeHost
  front: Front
  account: Account
  key: string
  port: number
  apiSocketPath: string
  /** Connections into the guest that are open now. */
  dialled: Set<GuestConnection>
  /** Publishes under `app` a server that a test runs on this machine. */
  publish(localPort: number, alias?: string): Promise<void>
}

export type StageOptions = {
  rateLimits?: Record<string, { burst: number; per_minute: number }>
  trustedProxies?: string[]
  apiHosts?: string[]
  domain?: string
  tls?: { certPath: string; keyPath: string }
  zone?: Partial<Zone>
}

export async function openStage(options: StageOptions = {}): Promise<Stage> {
  const domain = options.domain ?? "localhost"
  const host = fakeHost()
  const store = await openStore({ memory: true })
  const core = newCore({
    store,
    host,
    log: { info() {}, warn() {}, error: (fields, message) => console.error(message, fields) },
    settings: {
      thermal: { warmAfterMs: 30_000, coldAfterMs: 1_800_000, timerWindowMs: 60_000 },
      diskReserveMib: 1024,
      memoryReserveMib: 512,
      templateDiskMib: 8192,
      pool: { sizeMax: 0, memoryMibMax: 0 },
      publicAddress: { scheme: "http", domain, port: 8080 },
      guestDefaults: {},
    },
  } as Parameters<typeof newCore>[0])
  const rateLimits = RateLimits.parse({
    ...Object.fromEntries(
      ["proxy_client", "proxy_alias", "proxy_total"].map((name) => [
        name,
        { burst: 100_000, per_minute: 100_000 },
      ]),
    ),
    ...options.rateLimits,
  })
  const app = createApp(
    core,
    { version: "0.0.0", accelerator: "tcg", acceleratorReason: "test", warnings: [] },
    { apiHosts: [domain, ...(options.apiHosts ?? [])], rates: new RequestRates(rateLimits) },
  )
  const served = serveApp(core, app, {
    zone: { domain, apiHosts: options.apiHosts ?? [], ...options.zone },
    trustedProxies: options.trustedProxies ?? [],
    rateLimits,
    tls: options.tls,
  })
  const { account, key } = await newAccount(core)
  const dialled = new Set<GuestConnection>()
  const localPorts = new Map<number, number>()
  host.dial = (port) => {
    const connection = dialTcp(localPorts.get(port) ?? 1, () => dialled.delete(connection))
    dialled.add(connection)
    return connection
  }
  const { sandbox } = await createSandbox(core, account, { name: "dev" })
  let nextPort = 3000

  return {
    core,
    host,
    front: served.front,
    account,
    key,
    port: served.front.port,
    apiSocketPath: served.apiSocketPath,
    dialled,
    async publish(localPort, alias = "app") {
      const port = nextPort++
      localPorts.set(port, localPort)
      // Straight into the store: core refuses the reserved alias "app".
      await store.publishedPorts.add({ sandboxId: sandbox.id, port, alias })
    },
    async [Symbol.asyncDispose]() {
      await served[Symbol.asyncDispose]()
      await core.events.flush()
      await store.close()
    },
  }
}

async function newAccount(core: Core): Promise<{ account: Account; key: string }> {
  const { key } = await core.store.users.create({ name: "alice", maxSandboxes: 100 })
  const account = await core.store.users.findByKey(key)
  if (!account) throw new Error("no account")
  return { account, key }
}

/** Stands in for `dial` of a guest's agent. */
function dialTcp(port: number, onClosed: () => void): GuestConnection {
  const connected = Promise.withResolvers<void>()
  const result = Promise.withResolvers<void>()
  result.promise.catch(() => undefined)
  connected.promise.catch(() => undefined)
  const opened = Promise.withResolvers<SocketPeer>()
  opened.promise.catch(() => undefined)
  let isGivenUp = false
  const fail = (error: Error) => {
    connected.reject(error)
    result.reject(error)
    opened.reject(error)
    onClosed()
  }
  Bun.connect<SocketPeer | undefined>({
    hostname: "127.0.0.1",
    port,
    allowHalfOpen: true,
    data: undefined,
    socket: SocketPeer.listeners((peer) => {
      peer.onGone = () => fail(new Error("reset"))
      if (isGivenUp) peer.close()
      connected.resolve()
      opened.resolve(peer)
    }),
  }).catch(() => {
    fail(new AppError("unavailable", `nothing listens on port ${port}`))
  })
  return {
    connected: connected.promise,
    result: result.promise,
    output: (async function* () {
      const peer = await opened.promise
      for (let bytes = await peer.read(); bytes; bytes = await peer.read()) yield bytes
    })(),
    async write(bytes) {
      await (await opened.promise).write(bytes)
    },
    endInput: () => void opened.promise.then((peer) => peer.end()),
    close() {
      isGivenUp = true
      void opened.promise.then(
        (peer) => peer.close(),
        () => undefined,
      )
    },
  }
}

/** An HTTP server whose every byte a test decides: it gets each connection's bytes and writes what it likes. */
export function rawServer(
  respond: (socket: Bun.Socket<{ received: string }>, received: string) => void,
  options: { onClose?: () => void } = {},
): { port: number; received: string[]; open: () => number } & Disposable {
  const received: string[] = []
  let open = 0
  const listener = Bun.listen<{ received: string }>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        open++
        socket.data = { received: "" }
      },
      data(socket, bytes) {
        const text = bytes.toString("latin1")
        received.push(text)
        socket.data.received += text
        respond(socket, socket.data.received)
      },
      end: (socket) => void socket.end(),
      close() {
        open--
        options.onClose?.()
      },
      error() {},
      drain() {},
    },
  })
  return { port: listener.port, received, open: () => open, [Symbol.dispose]: () => listener.stop(true) }
}

/** A connection that stays: it may end its own side and read on. */
export async function connectRaw(port: number, bytes: string | Uint8Array) {
  let answer = ""
  let isClosed = false
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    allowHalfOpen: true,
    socket: {
      data(_, chunk) {
        answer += chunk.toString()
      },
      close() {
        isClosed = true
      },
    },
  })
  socket.write(bytes)
  return { socket, answer: () => answer, isClosed: () => isClosed }
}

/** Sends bytes as they are and gives what comes back until the other side closes. */
export async function sendRaw(
  port: number,
  bytes: string | Uint8Array,
  options: { until?: RegExp } = {},
): Promise<string> {
  const done = Promise.withResolvers<string>()
  let answer = ""
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (opened) => void opened.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes),
      data(_, chunk) {
        answer += chunk.toString("latin1")
        if (options.until?.test(answer)) done.resolve(answer)
      },
      close: () => done.resolve(answer),
      error: () => done.resolve(answer),
      drain() {},
    },
  })
  const timer = setTimeout(() => done.reject(new Error(`no end; so far: ${JSON.stringify(answer)}`)), 10_000)
  try {
    return await done.promise
  } finally {
    clearTimeout(timer)
    socket.terminate()
  }
}

export function get(
  path: string,
  options: { host?: string; headers?: string[]; version?: string } = {},
): string {
  const { host = "app.localhost", headers = [], version = "1.1" } = options
  return [`GET ${path} HTTP/${version}`, `Host: ${host}`, ...headers, "", ""].join("\r\n")
}
