/**
 * A request to the API and its response. The API is a function in this process: it consumes the request's body as
 * it arrives and produces its answer as the client takes it, without another connection in between.
 *
 * Owns how the answer is framed and when either side times out. A change of protocol is a `ProxiedRequest`.
 */

import { STATUS_CODES } from "node:http"
import { AppError } from "@bhatti/contract/errors"
import { type ReadPace, ReadPaceCheck, wholeAnswerPace } from "../rules/read-pace.ts"
import { encodeChunk, lastChunk } from "./chunked.ts"
import { type ClientFacts, forwardedHeaders, isBodyless, responseBytes, wantsKeepAlive } from "./forwarded.ts"
import { type Framing, HeadError, type RequestHead, valuesOf } from "./head.ts"
import { Lost, type SocketPeer } from "./peer.ts"
import { readBody } from "./reading.ts"
import { apiTimeouts } from "./upstreams.ts"

/**
 * The API need not read the body; a truncated body throws. `bytes` is the body of a streamed answer; the response
 * has no body then.
 */
export type Api = (request: Request, body: AsyncIterable<Uint8Array>) => Promise<Answer>
type Answer = { response: Response; bytes: AnswerBytes | undefined }
type AnswerBytes = {
  /** How fast the client has to take them; if omitted, the client may take its time. */
  readonly pace: ReadPace | undefined
  /** Returns the next bytes, or undefined at the end. Rejects if the rest cannot be read. */
  read(): Promise<Uint8Array | undefined>
  /** Pending calls reject. */
  close(): void
}

/** How long a client that had ended its side before the answer has to refuse it, as one that is gone does. */
const refusalMs = 500

const mayContinue = Buffer.from("HTTP/1.1 100 Continue\r\n\r\n")

export class ApiRequest {
  readonly #client: SocketPeer
  readonly #request: RequestHead
  readonly #facts: ClientFacts
  readonly #api: Api
  readonly #body: AsyncGenerator<Uint8Array>
  readonly #abort = new AbortController()
  readonly #stopped = Promise.withResolvers<never>()
  #bytes: AnswerBytes | undefined
  /** True once the body has been read to its end. */
  #isRead: boolean
  /** True while the client waits for `100 Continue` before it sends its body. */
  #isHeldBack: boolean
  #readingSinceMs: number | undefined
  /** True once the whole answer was handed to the socket. */
  #isAnswered = false
  #readPace: ReadPaceCheck | undefined

  constructor(options: { client: SocketPeer; request: RequestHead; facts: ClientFacts; api: Api }) {
    this.#client = options.client
    this.#request = options.request
    this.#facts = options.facts
    this.#api = options.api
    this.#body = this.#readBody()
    // The request may be stopped before anything awaits this promise.
    this.#stopped.promise.catch(() => undefined)
    const { framing, headers, version } = options.request
    this.#isRead = isBodyless(framing)
    this.#isHeldBack = !this.#isRead && version === "1.1" && valuesOf(headers, "expect").length > 0
  }

  /**
   * Returns true if the connection stays open. Rejects with the reason for a refusal, or with `Lost` if the
   * connection must be dropped.
   */
  async run(): Promise<boolean> {
    const { method, target, framing } = this.#request
    const headers = forwardedHeaders(this.#request, this.#facts)
    if (framing.kind === "length") headers.push(["content-length", `${framing.bytes}`])
    const { signal } = this.#abort
    const request = new Request(`http://api${target === "*" ? "/*" : target}`, { method, headers, signal })
    // The engine would replace a method that it does not know.
    if (request.method !== method) throw new HeadError("there is no such method", 501)

    // Ending an iteration does not end the body: the rest may still be read.
    const body = { [Symbol.asyncIterator]: () => ({ next: () => this.#body.next() }) }
    const answering = this.#api(request, body)
    try {
      return await this.#answer(await Promise.race([answering, this.#stopped.promise]))
    } finally {
      // The answer may arrive after the last waiter has left.
      answering.then(
        ({ bytes }) => bytes?.close(),
        () => undefined,
      )
    }
  }

  /** Called several times a second; enforces the timeouts. */
  check(nowMs: number): void {
    const { endedAtMs, hasArrived, isWriting, wroteBytes } = this.#client
    if (this.#readPace?.isTooSlow({ ms: nowMs, bytes: wroteBytes, isWaitedFor: isWriting }))
      return this.stop()
    // A client that has ended its side may be gone: that looks the same.
    if (endedAtMs !== undefined && (this.#isRead || !hasArrived) && !isWriting && !this.#isAnswered)
      this.stop()
    else if (this.#readingSinceMs !== undefined && nowMs - this.#readingSinceMs > apiTimeouts.bodyMs)
      this.#stopWith(new HeadError("the request's body did not arrive in time", 408))
  }

  /** Closes both sides. */
  stop(): void {
    this.#stopWith(new Lost("the client disconnected"))
    this.#client.close()
  }

  #stopWith(reason: unknown): void {
    this.#stopped.reject(reason)
    this.#abort.abort()
    this.#bytes?.close()
  }

  async *#readBody(): AsyncGenerator<Uint8Array, void> {
    try {
      if (this.#isHeldBack) await this.#client.write(mayContinue)
      this.#isHeldBack = false
      this.#readingSinceMs = performance.now()
      for await (const bytes of readBody(this.#client, this.#request.framing)) {
        this.#readingSinceMs = undefined
        yield bytes
        this.#readingSinceMs = performance.now()
      }
      this.#isRead = true
    } catch (error) {
      this.#stopWith(error)
      throw new AppError("invalid", "the request's body ended early")
    } finally {
      this.#readingSinceMs = undefined
    }
  }

  async #answer({ response, bytes }: Answer): Promise<boolean> {
    this.#bytes = bytes
    const whole = bytes ? undefined : await response.bytes()
    await this.#skipArrived()
    const framing = this.#framingOf(response, whole)
    const staysOpen = this.#isRead && wantsKeepAlive(this.#request) && framing.kind !== "until_close"
    const saysKeepAlive = this.#request.version === "1.0" ? "keep-alive" : undefined
    const head = responseBytes(
      {
        status: response.status,
        reason: STATUS_CODES[response.status] ?? "",
        headers: [...response.headers, ["date", new Date().toUTCString()]],
      },
      { framing, connection: staysOpen ? saysKeepAlive : "close" },
    )
    const pace = bytes ? bytes.pace : wholeAnswerPace
    this.#readPace =
      pace && new ReadPaceCheck(pace, { ms: performance.now(), bytes: this.#client.wroteBytes })
    const mayBeGone = whole && (await this.#mayBeGone())
    await this.#client.write(whole && framing.kind === "length" ? Buffer.concat([head, whole]) : head)
    if (mayBeGone) await this.#stopIfRefused()
    if (bytes && framing.kind !== "none") await this.#stream(bytes, framing)
    return staysOpen
  }

  /** Looks once at what has arrived: the client's end may wait in the socket while the answer is made. */
  async #mayBeGone(): Promise<boolean> {
    if (this.#request.method === "GET") return false
    await afterEventsThatWait()
    return this.#client.endedAtMs !== undefined
  }

  /** The system takes an answer to a client that is gone, and learns afterwards that nobody wants it. */
  async #stopIfRefused(): Promise<void> {
    this.#isAnswered = true
    await Promise.race([this.#stopped.promise, Bun.sleep(refusalMs)])
  }

  #framingOf({ status, headers }: Response, whole: Uint8Array | undefined): Framing {
    if (this.#request.method === "HEAD" || status === 204 || status === 304) return { kind: "none" }
    if (whole) return { kind: "length", bytes: whole.length }
    const length = headers.get("content-length")
    if (length !== null) return { kind: "length", bytes: Number(length) }
    return { kind: this.#request.version === "1.1" ? "chunked" : "until_close" }
  }

  /** Skips unread parts of the body that have arrived, so that they need not end the connection. */
  async #skipArrived(): Promise<void> {
    while (!this.#isRead && !this.#isHeldBack && this.#client.hasArrived) {
      const { done } = await this.#body.next().catch(() => ({ done: true }))
      if (done) break
    }
  }

  /** Drops the connection if the answer is not as long as announced, so that the client notices. */
  async #stream(bytes: AnswerBytes, framing: Framing): Promise<void> {
    const { kind } = framing
    let left = framing.kind === "length" ? framing.bytes : Number.POSITIVE_INFINITY
    for (;;) {
      const piece = await bytes.read().catch(() => {
        throw new Lost("the response ended early")
      })
      if (!piece) break
      left -= piece.length
      if (left < 0) break
      await this.#client.write(kind === "chunked" ? encodeChunk(piece) : piece)
    }
    if (kind === "length" && left !== 0) throw new Lost("the response is not as long as announced")
    if (kind === "chunked") await this.#client.write(lastChunk)
  }
}

/** Resolves when the event loop has taken what waits in the sockets: the first turn ends before it looks. */
async function afterEventsThatWait(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
}
