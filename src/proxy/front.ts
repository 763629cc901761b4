/**
 * The daemon's one address: API and published ports, with or without TLS. Our own strict parser reads the head of
 * every request; the request then goes to a sandbox or to the API, whose
 * WebSockets are served behind a unix socket.
 *
 * Uses raw sockets, since Bun's HTTP server and client hide what a proxy needs: upgrades, back-pressure and
 * half-closed connections.
 */

import type { RateLimits } from "@bhatti/contract/config"
import { AppError } from "@bhatti/contract/errors"
import type { Core } from "../core/core.ts"
import { limitKey, plainAddress, TrustedProxies } from "../lib/client-address.ts"
import type { Api } from "./api-request.ts"
import { type Certificate, type CertificatePaths, readCertificate, stampOf } from "./certificate.ts"
import { ClientConnection, type ConnectionParts } from "./client-connection.ts"
import { ConnectionLimits } from "./connection-limits.ts"
import { SocketPeer } from "./peer.ts"
import type { Zone } from "./routing.ts"
import { Upstreams } from "./upstreams.ts"

export type FrontOptions = {
  /** HOST:PORT */
  address: string
  zone: Zone
  /** Answers plain requests itself; a WebSocket goes to its server behind the unix socket. */
  api: { answer: Api; socketPath: string }
  trustedProxies: readonly string[]
  rateLimits: RateLimits
  tls?: CertificatePaths | undefined
}

const checkEveryMs = 200
const answersPollMs = 10
const certificateCheckEveryMs = 10_000

export class Front {
  readonly #core: Core
  readonly #options: FrontOptions
  readonly #parts: ConnectionParts
  readonly #connections = new Set<ClientConnection>()
  readonly #timers: Timer[] = []
  readonly #cutOff = (alias: string): void => this.#parts.connectionLimits.cutOff(alias)
  #listener: Bun.TCPSocketListener<SocketPeer | undefined>
  #certificateStamp: string | undefined

  constructor(core: Core, options: FrontOptions) {
    this.#core = core
    this.#options = options
    const connectionLimits = new ConnectionLimits(options.rateLimits)
    this.#parts = {
      core,
      zone: options.zone,
      connectionLimits,
      trustedProxies: new TrustedProxies(options.trustedProxies),
      api: options.api.answer,
      upstreams: new Upstreams(core, { apiSocketPath: options.api.socketPath }),
    }
    core.onUnpublished.add(this.#cutOff)
    this.#certificateStamp = options.tls && stampOf(options.tls)
    this.#listener = this.#listen(portOf(options.address), options.tls && readCertificate(options.tls))
    this.#timers.push(setInterval(() => this.check(performance.now()), checkEveryMs))
    if (options.tls) this.#timers.push(setInterval(() => this.#watchCertificate(), certificateCheckEveryMs))
  }

  get port(): number {
    return this.#listener.port
  }

  get connectionCount(): number {
    return this.#connections.size
  }

  /** Open connections keep their certificate. An invalid certificate is logged, and the one in use stays. */
  reloadCertificate(): void {
    const { tls } = this.#options
    if (!tls) return
    try {
      this.#certificateStamp = stampOf(tls)
      const certificate = readCertificate(tls)
      // A port has one listener: between the two, for less than a millisecond, connections are refused.
      const { port } = this.#listener
      this.#listener.stop(false)
      this.#listener = this.#listen(port, certificate)
      this.#core.log.info({}, "the certificate was read again")
    } catch (error) {
      this.#core.log.error({ error }, "the certificate could not be read again")
    }
  }

  /** Enforces the timeouts. Called by its own timer; a test may pass another clock. */
  check(nowMs: number): void {
    for (const connection of this.#connections) connection.check(nowMs)
  }

  /** Accepts no further connection; those that are open go on. */
  stopListening(): void {
    this.#listener.stop(false)
  }

  /** Waits for the answers that are under way, but not for long. */
  async awaitAnswers(deadlineMs: number): Promise<void> {
    const untilMs = performance.now() + deadlineMs
    const isAnswering = () => [...this.#connections].some((connection) => connection.isAnswering)
    while (isAnswering() && performance.now() < untilMs) await Bun.sleep(answersPollMs)
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer)
    this.#core.onUnpublished.delete(this.#cutOff)
    this.#listener.stop(false)
    for (const connection of this.#connections) connection.cutOff()
  }

  #listen(port: number, certificate: Certificate | undefined): Bun.TCPSocketListener<SocketPeer | undefined> {
    const { address } = this.#options
    try {
      return Bun.listen<SocketPeer | undefined>({
        hostname: hostOf(address),
        port,
        allowHalfOpen: true,
        data: undefined,
        socket: SocketPeer.listeners((peer, socket) => this.#open(peer, socket.remoteAddress)),
        ...(certificate && { tls: certificate }),
      })
    } catch (cause) {
      throw new AppError("unavailable", `cannot listen on ${address}`, {
        cause,
        hint: "is another daemon running? choose another address with --listen HOST:PORT",
        retryable: false,
      })
    }
  }

  #open(peer: SocketPeer, remoteAddress: string): void {
    const { connectionLimits, trustedProxies } = this.#parts
    const address = plainAddress(remoteAddress)
    const isTrusted = trustedProxies.has(address)
    const scheme = this.#options.tls ? "https" : "http"
    const connection = new ClientConnection(peer, { peer: address, isTrusted, scheme }, this.#parts)
    this.#connections.add(connection)
    const countedAs = isTrusted ? undefined : limitKey(address)
    const isAdmitted = connectionLimits.openConnection(countedAs)
    peer.onClosed = () => {
      this.#connections.delete(connection)
      if (isAdmitted) connectionLimits.closeConnection(countedAs)
    }
    const served = isAdmitted
      ? connection.serve()
      : connection.refuseConnection({ status: 503, message: "too many connections", retryAfterSec: 1 })
    served.catch((error: unknown) => this.#core.log.error({ error }, "internal error in the proxy"))
  }

  #watchCertificate(): void {
    const { tls } = this.#options
    const stamp = tls && stampOf(tls)
    if (stamp !== undefined && stamp !== this.#certificateStamp) this.reloadCertificate()
  }
}

function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":")).replace(/^\[|\]$/g, "")
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1))
}
