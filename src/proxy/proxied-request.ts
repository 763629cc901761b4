/**
 * A request and its response between a client and its upstream.
 *
 *   request head ──► upstream          both directions run at once from here on
 *   request body ──► upstream   │   client ◄── interim answers ◄── upstream
 *                               │   client ◄── head, body      ◄── upstream
 *                               │   101: bytes both ways until both have ended
 *
 * Owns which bytes are forwarded and when either side times out. Does not choose the upstream and does not keep
 * connections for a next request.
 */

import { encodeChunk, lastChunk } from "./chunked.ts"
import {
  type ClientFacts,
  isBodyless,
  requestBytes,
  responseBytes,
  upgradeOf,
  wantsKeepAlive,
} from "./forwarded.ts"
import {
  type Framing,
  HeadError,
  listOf,
  parseResponseHead,
  type RequestHead,
  type ResponseHead,
} from "./head.ts"
import { Lost, type Peer, type SocketPeer } from "./peer.ts"
import { readBody, readHead } from "./reading.ts"
import { type Refusal, refusalBytes } from "./refusal.ts"

/** Timeouts for an upstream and its client; infinite if the upstream enforces them itself. */
export type Timeouts = {
  /** Without a byte of the request's body. */
  bodyMs: number
  /** From the request's end to the answer's head. */
  answerMs: number
  /** Without a byte of the answer. */
  idleMs: number
  /** Without a byte either way after a change of protocol. */
  tunnelIdleMs: number
  /**
   * A client that has ended its side may be gone or may still wait for the answer: both look the same. It counts as
   * gone after this long without any bytes for it.
   */
  lingerMs: number
}

export type Ending =
  | { kind: "done"; client: "keep" | "close" | "drop"; isUpstreamReusable: boolean }
  /**
   * The upstream had closed a kept connection. The request had no effect yet and can be retried on a new
   * connection.
   */
  | { kind: "stale" }

/**
 * Timeout for a tunnel with one side ended, or one that reads nothing from its client and so would not notice it
 * leaving.
 */
const stuckTunnelIdleMs = 60_000
const interimAnswersMax = 16
/** Methods that are safe to repeat by the standard. */
const repeatable = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])

export class ProxiedRequest {
  readonly #client: SocketPeer
  readonly #upstream: Peer
  readonly #request: RequestHead
  readonly #facts: ClientFacts
  readonly #timeouts: Timeouts
  readonly #isUpstreamReused: boolean
  #phase: "asking" | "answering" | "tunnel" = "asking"
  #isSent = false
  /** The upstream has sent some bytes. */
  #isHeard = false
  /** Framing of the answer once its head has been sent to the client; from then on a refusal is impossible. */
  #answered: Framing | undefined
  #stopped: { refusal: Refusal | undefined } | undefined
  #movedAtMs = performance.now()

  constructor(options: {
    client: SocketPeer
    upstream: Peer
    request: RequestHead
    facts: ClientFacts
    timeouts: Timeouts
    isUpstreamReused: boolean
  }) {
    this.#client = options.client
    this.#upstream = options.upstream
    this.#request = options.request
    this.#facts = options.facts
    this.#timeouts = options.timeouts
    this.#isUpstreamReused = options.isUpstreamReused
  }

  async run(): Promise<Ending> {
    let isReusable = false
    try {
      const ending = await this.#forward()
      isReusable = ending.kind === "done" && ending.isUpstreamReusable
      return ending
    } finally {
      if (!isReusable) this.#upstream.close()
    }
  }

  /** Called several times a second; enforces the timeouts. */
  check(nowMs: number): void {
    const stillMs = nowMs - this.#movedAtMs
    if (this.#phase === "tunnel") {
      const isStuck = this.#client.hasEnded || this.#upstream.hasEnded || this.#client.isPaused
      if (stillMs > (isStuck ? stuckTunnelIdleMs : this.#timeouts.tunnelIdleMs)) this.stop()
      return
    }
    const { endedAtMs, wroteAtMs, isWriting } = this.#client
    if (endedAtMs !== undefined && this.#isSent && !isWriting) {
      if (nowMs - Math.max(endedAtMs, wroteAtMs) >= this.#timeouts.lingerMs) return this.stop()
    }
    if (this.#phase === "answering") {
      if (stillMs > this.#timeouts.idleMs) this.stop()
    } else if (this.#isSent) {
      if (stillMs > this.#timeouts.answerMs)
        this.#stopWith({ status: 504, message: "the application does not answer" })
    } else if (stillMs > this.#timeouts.bodyMs) {
      this.#stopWith({ status: 408, message: "the request's body did not arrive in time" })
    }
  }

  /** Closes both sides. */
  stop(): void {
    this.#stopWith(undefined)
    this.#client.close()
  }

  #stopWith(refusal: Refusal | undefined): void {
    if (this.#stopped) return
    this.#stopped = { refusal }
    this.#upstream.close()
  }

  async #forward(): Promise<Ending> {
    // Never rejects. A failure shows in the answer, or in a missing answer.
    const sending = this.#send()
    try {
      const response = await this.#readFinalHead()
      if (response.status === 101) return await this.#tunnel(response)
      return await this.#answer(response)
    } catch (error) {
      if (!(error instanceof Lost || error instanceof HeadError)) throw error
      return this.#fail(error)
    } finally {
      if (this.#isSent) await sending
    }
  }

  async #send(): Promise<void> {
    const { framing } = this.#request
    try {
      await this.#upstream.write(requestBytes(this.#request, this.#facts))
      for await (const bytes of readBody(this.#client, framing)) {
        this.#moved()
        await this.#upstream.write(framing.kind === "chunked" ? encodeChunk(bytes) : bytes)
      }
      if (framing.kind === "chunked") await this.#upstream.write(lastChunk)
      this.#isSent = true
      this.#moved()
    } catch (error) {
      // An upstream may answer and close without having read everything.
      if (this.#upstream.isLost) return
      if (error instanceof HeadError) this.#stopWith({ status: error.status, message: error.message })
      else this.stop()
    }
  }

  async #readFinalHead(): Promise<ResponseHead> {
    for (let interim = 0; interim <= interimAnswersMax; interim++) {
      const bytes = await readHead(this.#upstream, "response", () => {
        this.#isHeard = true
      })
      if (!bytes) throw new Lost("the connection ended without an answer")
      this.#moved()
      const response = parseResponseHead(bytes, this.#request.method)
      if (response.status >= 200 || response.status === 101) return response
      if (this.#request.version === "1.0") continue
      await this.#client.write(responseBytes(response, { framing: { kind: "none" }, connection: undefined }))
    }
    throw new HeadError("too many interim answers")
  }

  async #answer(response: ResponseHead): Promise<Ending> {
    this.#phase = "answering"
    const framing = clientFraming(response.framing, this.#request.version)
    // A client that waits for `100 Continue` will not send its body now.
    const staysOpen =
      wantsKeepAlive(this.#request) &&
      framing.kind !== "until_close" &&
      (this.#isSent || !this.#expectsToContinue())
    const saysKeepAlive = this.#request.version === "1.0" ? "keep-alive" : undefined
    const head = responseBytes(response, { framing, connection: staysOpen ? saysKeepAlive : "close" })

    await this.#writeWithHead(head, response.framing, framing)
    const isUpstreamReusable =
      this.#isSent &&
      response.framing.kind !== "until_close" &&
      wantsKeepAlive(response) &&
      !this.#upstream.hasEnded &&
      !this.#upstream.hasArrived
    // The rest of an unread body cannot be told from the next request.
    return { kind: "done", client: staysOpen && this.#isSent ? "keep" : "close", isUpstreamReusable }
  }

  /** Sends a small answer that has already arrived in one piece with its head. */
  async #writeWithHead(head: Buffer, from: Framing, to: Framing): Promise<void> {
    let before: Uint8Array | undefined = head
    if (isBodyless(from) || !this.#upstream.hasArrived) {
      this.#answered = to
      await this.#client.write(head)
      before = undefined
    }
    for await (const bytes of readBody(this.#upstream, from)) {
      this.#moved()
      const piece = to.kind === "chunked" ? encodeChunk(bytes) : bytes
      this.#answered = to
      await this.#client.write(before ? Buffer.concat([before, piece]) : piece)
      this.#moved()
      before = undefined
    }
    this.#answered = to
    if (before) await this.#client.write(before)
    if (to.kind === "chunked") await this.#client.write(lastChunk)
  }

  async #tunnel(response: ResponseHead): Promise<Ending> {
    const wanted = upgradeOf(this.#request)
    if (wanted === undefined || listOf(response.headers, "upgrade").join() !== wanted)
      throw new HeadError("the application switched to a protocol that was not requested")
    this.#phase = "tunnel"
    this.#answered = { kind: "until_close" }
    await this.#client.write(responseBytes(response, { framing: { kind: "none" }, connection: "upgrade" }))
    try {
      await Promise.all([this.#pump(this.#client, this.#upstream), this.#pump(this.#upstream, this.#client)])
    } catch (error) {
      this.stop()
      throw error
    }
    return { kind: "done", client: "close", isUpstreamReusable: false }
  }

  async #pump(from: Peer, to: Peer): Promise<void> {
    for (let bytes = await from.read(); bytes; bytes = await from.read()) {
      this.#moved()
      await to.write(bytes)
    }
    this.#moved()
    to.end()
  }

  async #fail(error: Lost | HeadError): Promise<Ending> {
    const drop: Ending = { kind: "done", client: "drop", isUpstreamReusable: false }
    if (this.#client.isLost) return drop
    // Delivers the received bytes. A truncated answer shows in a missing last chunk or missing bytes, otherwise in
    // a reset.
    const showsItsEnd = this.#answered?.kind === "chunked" || this.#answered?.kind === "length"
    if (this.#answered) return showsItsEnd && !this.#stopped ? { ...drop, client: "close" } : drop
    if (this.#stopped) return this.#stopped.refusal ? this.#refuse(this.#stopped.refusal) : drop
    const isStale =
      this.#isUpstreamReused && !this.#isHeard && error instanceof Lost && this.#isSafeToRepeat()
    if (isStale) return { kind: "stale" }
    return this.#refuse({
      status: 502,
      message:
        error instanceof HeadError
          ? `the application's answer is not valid HTTP: ${error.message}`
          : "the application closed the connection without an answer",
    })
  }

  async #refuse(refusal: Refusal): Promise<Ending> {
    const keepAlive = this.#isSent && wantsKeepAlive(this.#request)
    try {
      await this.#client.write(refusalBytes(refusal, { keepAlive, request: this.#request }))
    } catch (error) {
      if (!(error instanceof Lost)) throw error
    }
    return { kind: "done", client: keepAlive ? "keep" : "close", isUpstreamReusable: false }
  }

  #isSafeToRepeat(): boolean {
    return isBodyless(this.#request.framing) && repeatable.has(this.#request.method)
  }

  #expectsToContinue(): boolean {
    return listOf(this.#request.headers, "expect").length > 0
  }

  #moved(): void {
    this.#movedAtMs = performance.now()
  }
}

/** The framing of a body of unknown length depends on the client's version. */
function clientFraming(framing: Framing, version: RequestHead["version"]): Framing {
  if (framing.kind === "none" || framing.kind === "length") return framing
  return { kind: version === "1.1" ? "chunked" : "until_close" }
}
