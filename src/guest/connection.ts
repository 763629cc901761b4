/**
 * The host's end of one guest's channel.
 *
 *   connect ── preamble sent, frames may follow ── guest's preamble: ready ── frames ── closed
 *
 * Owns the socket, its streams and their ids. Knows nothing about sandboxes and does not reconnect. The guest may
 * be hostile: whatever it sends costs only its own connection and bounded memory. When the channel is lost, every
 * pending operation fails with `unavailable`; unobserved promises do not cause unhandled rejections.
 */

import { AppError } from "@bhatti/contract/errors"
import type {
  FileList,
  GuestCommand,
  GuestFile,
  GuestIdentity,
  GuestOwner,
  ListeningPort,
  Pong,
  SessionNotice,
  SessionRecord,
  SessionStart,
  TerminalSize,
} from "@bhatti/contract/guest"
import { Connection, dialRequests, parsePorts } from "./dial.ts"
import { type Channel, quiet, type Stream } from "./exchange.ts"
import { Download, fileRequests, Listing, parseListed, parseOwner, parseStat, Transfer } from "./files.ts"
import {
  Decoder,
  encodeClose,
  encodeFrame,
  encodeHostPreamble,
  type Frame,
  nonceBytes,
  parseDataAt,
  WireError,
  wireLimits,
} from "./frame.ts"
import {
  encodeJson,
  parseNextTimer,
  parsePersonalised,
  parsePong,
  parseResult,
  type Result,
  requests,
} from "./message.ts"
import { Outbox } from "./outbox.ts"
import { Process } from "./process.ts"
import {
  parseNotice,
  parseSessions,
  parseStartedSession,
  Session,
  SessionOutput,
  sessionRequests,
} from "./session.ts"
import { type Direction, type OpenShared, type Region, SharedMemory } from "./shared-memory.ts"

/** A guest that already runs gets this long to answer before a partial frame is ended with zeros. */
const resyncAfterMs = 1000
/** Limit on unrequested bytes before the guest is disconnected: more than a lost connection leaves in the kernel. */
const wasteBytesMax = 64 * 1024 * 1024
const entropyBytes = 64
/** Limit on reported ends of sessions per connection; more are useless. */
const noticesMax = 1000
/** The first generation with shared memory. A guest without it speaks an earlier one. */
const sharingGeneration = 2

/** Connects to the guest's socket and sends the preamble immediately. Requests may follow before the guest answers. */
export async function openGuest(options: { socketPath: string; signal?: AbortSignal }): Promise<Guest> {
  const guest = new Guest()
  try {
    options.signal?.throwIfAborted()
    await Bun.connect({ unix: options.socketPath, socket: guest.socketListeners() })
  } catch (cause) {
    throw new AppError("unavailable", "cannot connect to the guest's channel", { cause })
  }
  const abort = () => guest.close()
  options.signal?.addEventListener("abort", abort, { once: true })
  void guest.closed.then(() => options.signal?.removeEventListener("abort", abort))
  if (options.signal?.aborted) guest.close()
  return guest
}

export class Guest {
  readonly #outbox: Outbox
  readonly #decoder: Decoder
  readonly #streams = new Map<number, Stream>()
  /** Streams that do not count as use of the sandbox. */
  readonly #glances = new Set<number>()
  readonly #shared = new SharedMemory(() => this.#nonce)
  #lastAtMs = performance.now()
  readonly #ready = Promise.withResolvers<{ generation: number }>()
  readonly #closed = Promise.withResolvers<{ reason: string }>()
  #socket: Bun.Socket | undefined
  #lost: AppError | undefined
  #isReady = false
  #generation = 0
  #nonce = newNonce()
  #nextStream = 1
  #wasteBytes = 0

  constructor() {
    this.#outbox = new Outbox((bytes) => this.#socket?.write(bytes) ?? 0)
    quiet(this.#ready.promise)
    this.#decoder = new Decoder(this.#nonce)
    this.#outbox.push(encodeHostPreamble(this.#nonce))
  }

  /** Handlers for the socket that becomes this guest's channel. */
  socketListeners(): Bun.SocketHandler<undefined> {
    const leave = () => this.#end("the guest's machine closed the channel")
    return {
      open: (socket) => {
        this.#socket = socket
        this.#outbox.flush()
      },
      data: (_, bytes) => this.#receive(bytes),
      drain: () => this.#outbox.flush(),
      end: leave,
      close: leave,
      error: (_, error) => this.#end(error.message),
    }
  }

  /** True once the guest has answered this connection's preamble. */
  get ready(): Promise<{ generation: number }> {
    return this.#ready.promise
  }

  /**
   * Number of open streams that count as use, and when the last one began or ended, on the clock of
   * `performance.now()`.
   */
  get activity(): { openStreams: number; lastAtMs: number } {
    return { openStreams: this.#streams.size - this.#glances.size, lastAtMs: this.#lastAtMs }
  }

  /** Resolves when the channel is lost, for whatever reason. Never rejects. */
  get closed(): Promise<{ reason: string }> {
    return this.#closed.promise
  }

  /**
   * Waits for the guest's preamble. With `resync` the guest already runs, and its last host may have died in the
   * middle of a frame; if there is no answer, the partial frame is ended, and every request made on this connection
   * so far ends with it.
   */
  waitReady(options: { deadlineMs: number; resync?: boolean }): Promise<{ generation: number }> {
    const timer = options.resync ? setTimeout(() => this.#resync(), resyncAfterMs) : undefined
    const ready = inTime(this.#ready.promise, options.deadlineMs, "the guest did not answer")
    return quiet(ready.finally(() => clearTimeout(timer)))
  }

  /** Does not count as use of the sandbox. */
  ping(options: { deadlineMs: number }): Promise<Pong> {
    return this.#ask(requests.ping(), parsePong, { ...options, isGlance: true })
  }

  /** Gives the guest its identity, fresh randomness and the time. If this fails, the guest must not be used. */
  personalise(identity: GuestIdentity, options: { deadlineMs: number }): Promise<{ bootId: string }> {
    return this.#ask(requests.personalise(identity, thisMoment()), parsePersonalised, options)
  }

  /** Sends fresh randomness and the time to a guest that was paused or restored and keeps its identity. */
  refresh(options: { deadlineMs: number }): Promise<void> {
    return this.#ask(requests.refresh(thisMoment()), () => undefined, options)
  }

  /**
   * Brings the guest to a frame boundary with its filesystems synced. The caller must not send requests afterwards.
   * With `untouchedMib` it also overwrites freed memory.
   */
  quiesce(options: { deadlineMs: number; untouchedMib?: number | undefined }): Promise<void> {
    return this.#ask(requests.quiesce(options), () => undefined, options)
  }

  /** Returns when the first program inside wants to run again. Does not count as use of the sandbox. */
  nextTimer(options: { deadlineMs: number }): Promise<{ dueMs: number | null }> {
    return this.#ask(requests.nextTimer(), parseNextTimer, { ...options, isGlance: true })
  }

  /**
   * Makes the guest sync its filesystems and discard deleted blocks, as far as `budgetMs` allows. Older agents do
   * not support it. With `untouchedMib` it also overwrites freed memory. Does not count as use of the sandbox.
   */
  trim(options: { budgetMs: number; untouchedMib?: number | undefined; deadlineMs: number }): Promise<void> {
    return this.#ask(requests.trim(options), () => undefined, { ...options, isGlance: true })
  }

  /** Resolves once the guest has begun to power off. */
  shutdown(options: { deadlineMs: number }): Promise<void> {
    return this.#ask(requests.shutdown(), () => undefined, options)
  }

  exec(command: GuestCommand): Process {
    return this.#begin(requests.exec(command), (id, channel) => new Process(id, channel))
  }

  /** Starts a session and attaches to it. */
  openSession(start: SessionStart): Session {
    return this.#begin(
      sessionRequests.open(start, { attach: true }),
      (id, channel) => new Session(id, channel),
    )
  }

  /** Starts a detached session. */
  startSession(start: SessionStart, options: { deadlineMs: number }): Promise<{ session: string }> {
    return this.#ask(sessionRequests.open(start, { attach: false }), parseStartedSession, options)
  }

  /** Attaches to a session by its id or name; by default to the newest detached session. */
  attachSession(options: { session?: string; tty: TerminalSize }): Session {
    return this.#begin(sessionRequests.attach(options), (id, channel) => new Session(id, channel))
  }

  sessions(options: { deadlineMs: number }): Promise<SessionRecord[]> {
    return this.#ask(sessionRequests.list(), parseSessions, options)
  }

  /** Reads the kept output of a session; an attached client stays attached. */
  readSession(session: string): SessionOutput {
    return this.#begin(sessionRequests.read(session), (id, channel) => new SessionOutput(id, channel))
  }

  /**
   * Reports named sessions that end from now on, and earlier ends that were not reported. An older agent refuses,
   * and no ends are reported. Does not count as use of the sandbox.
   */
  watch(onEnded: (end: SessionNotice) => void): void {
    const id = this.#nextStream++
    const refuse = () => {
      throw new WireError("a watch got a frame of a stream")
    }
    let told = 0
    const onMessage = (payload: Uint8Array) => {
      const notice = parseNotice(payload)
      if (!notice || ++told > noticesMax) return false
      onEnded(notice)
      return true
    }
    const ignore = () => undefined
    const stream: Stream = {
      onData: refuse,
      onDataAt: refuse,
      onWindow: refuse,
      onMessage,
      onEnd: ignore,
      onClose: ignore,
      onLost: ignore,
    }
    this.#glances.add(id)
    this.#open(id, stream, sessionRequests.watch())
  }

  /** Sends a signal to every process of a session; removes a session that has ended. */
  killSession(session: string, signal: string, options: { deadlineMs: number }): Promise<void> {
    return this.#ask(sessionRequests.kill(session, signal), () => undefined, options)
  }

  readFile(options: { path: string }): Download {
    return this.#beginReading(
      (shared) => fileRequests.read({ ...options, shared }),
      (id, channel) => new Download(id, channel),
    )
  }

  /** The file exists once `result` resolves; otherwise it is unchanged. */
  writeFile(options: {
    path: string
    mode?: string
    size?: number
    parents?: boolean
    owner?: GuestOwner
  }): Transfer {
    return this.#begin(
      fileRequests.write(options),
      (id, channel) => new Transfer(id, this.#sharing(id, channel), { of: "file" }),
    )
  }

  /** Looks up "user" or "user:group" in the guest. */
  findOwner(owner: string, options: { deadlineMs: number }): Promise<GuestOwner> {
    return this.#ask(fileRequests.findOwner(owner), parseOwner, options)
  }

  async listFiles(path: string, options: { deadlineMs: number }): Promise<FileList> {
    const listing = new Listing()
    const { isTruncated } = await this.#ask(fileRequests.list(path), parseListed, {
      ...options,
      onMessage: (payload) => listing.take(payload),
    })
    return { files: listing.files, isTruncated }
  }

  statFile(path: string, options: { deadlineMs: number }): Promise<GuestFile> {
    return this.#ask(fileRequests.stat(path), parseStat, options)
  }

  removeFile(file: { path: string; recursive: boolean }, options: { deadlineMs: number }): Promise<void> {
    return this.#ask(fileRequests.remove(file), () => undefined, options)
  }

  makeDirectory(
    directory: { path: string; parents: boolean; mode: string; owner?: GuestOwner },
    options: { deadlineMs: number },
  ): Promise<void> {
    return this.#ask(fileRequests.makeDirectory(directory), () => undefined, options)
  }

  moveFile(names: { from: string; to: string }, options: { deadlineMs: number }): Promise<void> {
    return this.#ask(fileRequests.move(names), () => undefined, options)
  }

  /** A tar stream of a file or directory. */
  readArchive(options: { path: string }): Transfer {
    return this.#beginReading(
      (shared) => fileRequests.readArchive({ ...options, shared }),
      (id, channel) => new Transfer(id, channel, { of: "archive" }),
    )
  }

  /** Unpacks the tar stream that is written to it below a directory. */
  writeArchive(options: { path: string; owner?: GuestOwner }): Transfer {
    return this.#begin(
      fileRequests.writeArchive(options),
      (id, channel) => new Transfer(id, this.#sharing(id, channel), { of: "archive" }),
    )
  }

  dial(port: number): Connection {
    return this.#begin(dialRequests.dial(port), (id, channel) => new Connection(id, channel))
  }

  /** Returns the guest's listening TCP ports. */
  ports(options: { deadlineMs: number }): Promise<ListeningPort[]> {
    return this.#ask(dialRequests.ports(), parsePorts, options)
  }

  /** Uses memory that the guest's machine shares with this host for file transfers, as far as there is room. */
  share(open: OpenShared): void {
    this.#shared.use(open)
  }

  close(): void {
    this.#end("this host closed it")
  }

  #begin<S extends Stream>(request: object, make: (id: number, channel: Channel) => S): S {
    const id = this.#nextStream++
    const stream = make(id, this.#channel(id))
    this.#open(id, stream, request)
    return stream
  }

  /** Assigns the guest a region of the shared memory. */
  #beginReading<S extends Stream>(
    request: (shared: number | undefined) => object,
    make: (id: number, channel: Channel) => S,
  ): S {
    const id = this.#nextStream++
    const region = this.#claim(id, "from guest")
    const stream = make(id, { ...this.#channel(id), region })
    this.#open(id, stream, request(region?.base))
    return stream
  }

  #channel(id: number): Channel {
    return {
      send: (bytes) => this.#send(bytes),
      room: () => this.#outbox.room(),
      leave: () => this.#streams.delete(id),
    }
  }

  #sharing(id: number, channel: Channel): Channel {
    return { ...channel, claim: () => this.#claim(id, "to guest") }
  }

  #claim(id: number, direction: Direction): Region | undefined {
    return this.#generation >= sharingGeneration ? this.#shared.claim(id, direction) : undefined
  }

  #ask<Answer>(
    request: { op: string },
    parse: (value: unknown) => Answer,
    options: { deadlineMs: number; onMessage?: (payload: Uint8Array) => boolean; isGlance?: boolean },
  ): Promise<Answer> {
    const id = this.#nextStream++
    if (options.isGlance) this.#glances.add(id)
    const answer = Promise.withResolvers<Answer>()
    const refuse = () => {
      throw new WireError("an operation without a stream got a frame of one")
    }
    this.#open(
      id,
      {
        onData: refuse,
        onDataAt: refuse,
        onWindow: refuse,
        onMessage: options.onMessage ?? refuse,
        onEnd: () => undefined,
        onClose: (result: Result) => {
          if (result.kind === "error") answer.reject(result.error)
          else answer.resolve(parse(result.value))
        },
        onLost: answer.reject,
      },
      request,
    )
    const inTimeAnswer = inTime(answer.promise, options.deadlineMs, `the guest did not answer ${request.op}`)
    return quiet(
      inTimeAnswer.finally(() => {
        this.#glances.delete(id)
        // Only a request that timed out is still registered; a late answer to it is dropped.
        if (this.#streams.delete(id)) this.#send(encodeClose(id))
      }),
    )
  }

  #open(id: number, stream: Stream, request: object): void {
    const payload = encodeJson(request)
    const refusal = this.#lost ?? this.#refusal(payload)
    if (refusal) {
      // The request was never sent.
      this.#shared.guestClosed(id)
      stream.onLost(refusal)
      return
    }
    this.#streams.set(id, stream)
    if (!this.#glances.has(id)) this.#lastAtMs = performance.now()
    this.#send(encodeFrame({ type: "open", stream: id, payload }))
  }

  #refusal(payload: Uint8Array): AppError | undefined {
    if (payload.length > wireLimits.jsonBytesMax) {
      return new AppError(
        "invalid",
        `the request has ${payload.length} bytes, at most ${wireLimits.jsonBytesMax} are allowed`,
      )
    }
    if (this.#streams.size >= wireLimits.streamsMax) {
      return new AppError(
        "limit_exceeded",
        `${wireLimits.streamsMax} commands, transfers and connections are open in this sandbox already`,
      )
    }
    return undefined
  }

  #send(bytes: Uint8Array): void {
    this.#outbox.push(bytes)
    if (this.#outbox.isOverflowing) this.#end("the guest does not read")
  }

  #receive(bytes: Uint8Array): void {
    if (this.#lost) return
    const droppedBefore = this.#decoder.droppedBytes
    try {
      for (const decoded of this.#decoder.decode(bytes)) {
        if (decoded.kind === "preamble") {
          this.#isReady = true
          this.#generation = decoded.generation
          this.#ready.resolve({ generation: decoded.generation })
        } else {
          this.#handle(decoded.frame)
        }
      }
      this.#countWaste(this.#decoder.droppedBytes - droppedBefore)
    } catch (error) {
      this.#end(error instanceof Error ? error.message : String(error))
    }
  }

  #handle(frame: Frame): void {
    if (frame.type === "open") throw new WireError("the guest tried to open a stream")
    const stream = this.#streams.get(frame.stream)
    if (!stream) {
      if (frame.type === "close") this.#shared.guestClosed(frame.stream)
      this.#countWaste(wireLimits.headerBytes + frame.payload.length)
      return
    }
    const { payload } = frame
    switch (frame.type) {
      case "data":
        return stream.onData(payload[0] ?? 0, payload.subarray(1))
      case "data_at": {
        const { channel, extent } = parseDataAt(payload)
        return stream.onDataAt(channel, extent)
      }
      case "window":
        return this.#handleWindow(stream, Buffer.from(payload).readUInt32BE())
      case "message":
        if (!stream.onMessage(payload)) this.#countWaste(wireLimits.headerBytes + payload.length)
        return
      case "close":
        // Removed only if its answer was valid: otherwise it fails with the connection.
        stream.onClose(parseResult(payload))
        this.#streams.delete(frame.stream)
        this.#shared.guestClosed(frame.stream)
        if (!this.#glances.delete(frame.stream)) this.#lastAtMs = performance.now()
        return
      case "end":
        this.#countWaste(wireLimits.headerBytes)
        return stream.onEnd(payload[0] ?? 0)
    }
  }

  #handleWindow(stream: Stream, count: number): void {
    if (count === 0) this.#countWaste(wireLimits.headerBytes)
    stream.onWindow(count)
  }

  /** Counts useless bytes. A guest that floods its channel with them would keep the whole host busy. */
  #countWaste(count: number): void {
    this.#wasteBytes += count
    if (this.#wasteBytes > wasteBytesMax) throw new WireError("the guest floods the channel")
  }

  #resync(): void {
    if (this.#isReady || this.#lost) return
    this.#loseStreams(new AppError("unavailable", "the connection to the guest was restarted"))
    this.#nonce = newNonce()
    this.#decoder.expect(this.#nonce)
    this.#send(new Uint8Array(wireLimits.frameBytesMax))
    this.#send(encodeHostPreamble(this.#nonce))
  }

  #end(reason: string): void {
    if (this.#lost) return
    const lost = new AppError("unavailable", `the channel to the guest is lost: ${reason}`)
    this.#lost = lost
    this.#outbox.close()
    this.#socket?.terminate()
    this.#ready.reject(lost)
    this.#loseStreams(lost)
    this.#shared.close()
    this.#closed.resolve({ reason })
  }

  #loseStreams(error: AppError): void {
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    this.#glances.clear()
    for (const stream of streams) stream.onLost(error)
  }
}

function newNonce(): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(nonceBytes))
}

/** Returns the promise's outcome, or fails with `unavailable` at the deadline. */
async function inTime<T>(promise: Promise<T>, deadlineMs: number, message: string): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new AppError("unavailable", `${message} within ${deadlineMs} ms`)),
    deadlineMs,
  )
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

function thisMoment(): { entropy: Uint8Array; unixNs: bigint } {
  return {
    entropy: crypto.getRandomValues(new Uint8Array(entropyBytes)),
    unixNs: BigInt(Date.now()) * 1_000_000n,
  }
}
