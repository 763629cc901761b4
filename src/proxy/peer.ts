/**
 * An end of a byte stream: a client, the API's own server, or a port in a guest. Reads are pulled and writes wait,
 * so that no more than the limit below is buffered between a fast side and a slow one.
 */

import type { GuestConnection } from "../core/host.ts"

export interface Peer {
  /** Returns the next bytes, or undefined once the other side has ended. One reader at a time. Rejects with `Lost`. */
  read(): Promise<Uint8Array | undefined>
  /** Puts back bytes that were read too far; the next read returns them first. */
  unread(bytes: Uint8Array): void
  /** Resolves when more may be written. One writer at a time. Rejects with `Lost`. */
  write(bytes: Uint8Array): Promise<void>
  /** Ends our side; the other side may continue. */
  end(): void
  /** Closes both directions immediately. Pending reads and writes reject. */
  close(): void
  /** True if bytes have arrived that are still unread. */
  readonly hasArrived: boolean
  readonly hasEnded: boolean
  readonly isLost: boolean
}

/** The connection is gone: broken by the other side, or closed by us. */
export class Lost extends Error {
  override readonly name = "Lost"
}

/** Unread bytes beyond which the socket is paused. */
const arrivedBytesMax = 128 * 1024
const wasClosed = "closed"

type PeerSocket = Bun.Socket<SocketPeer | undefined>

export class SocketPeer implements Peer {
  readonly #socket: PeerSocket
  readonly #arrived: Uint8Array[] = []
  #arrivedBytes = 0
  #isPaused = false
  #hasEnded = false
  #isFinished = false
  #lost: Lost | undefined
  #unwritten: Uint8Array | undefined
  #reader: (() => void) | undefined
  #writer: (() => void) | undefined
  #isDiscarding = false
  /** When the other side ended, on the clock of `performance.now()`. */
  endedAtMs: number | undefined
  /** When the last byte was handed to the socket, and how many there were. */
  wroteAtMs = 0
  wroteBytes = 0
  /** Called once when the connection is lost. The current user of the connection sets it. */
  onGone: () => void = () => undefined
  /** Called once when the socket is closed, for counting connections. */
  onClosed: () => void = () => undefined

  constructor(socket: PeerSocket) {
    this.#socket = socket
  }

  /** Handlers for a listening or connecting socket; `opened` receives the peer of each connection. */
  static listeners(
    opened: (peer: SocketPeer, socket: PeerSocket) => void,
  ): Bun.SocketHandler<SocketPeer | undefined> {
    const tell = (socket: PeerSocket, what: (peer: SocketPeer) => void) => {
      if (socket.data) what(socket.data)
    }
    return {
      open(socket) {
        socket.data = new SocketPeer(socket)
        opened(socket.data, socket)
      },
      data: (socket, bytes) => tell(socket, (peer) => peer.#arrive(bytes)),
      drain: (socket) => tell(socket, (peer) => peer.#flush()),
      end: (socket) => tell(socket, (peer) => peer.#otherEnded()),
      error: (socket) => tell(socket, (peer) => peer.#lose("it broke")),
      close: (socket) =>
        tell(socket, (peer) => {
          peer.#lose("the other side closed the connection")
          peer.onClosed()
        }),
    }
  }

  static async connectUnix(path: string): Promise<SocketPeer> {
    const opened = Promise.withResolvers<SocketPeer>()
    await Bun.connect<SocketPeer | undefined>({
      unix: path,
      allowHalfOpen: true,
      data: undefined,
      socket: SocketPeer.listeners((peer) => opened.resolve(peer)),
    })
    return opened.promise
  }

  get hasArrived(): boolean {
    return this.#arrived.length > 0
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  get isLost(): boolean {
    return this.#lost !== undefined
  }

  /** True if the socket is paused because too many bytes are unread. Its end is not noticed until reading resumes. */
  get isPaused(): boolean {
    return this.#isPaused
  }

  /** True while bytes wait for the other side to take them. */
  get isWriting(): boolean {
    return this.#unwritten !== undefined
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const bytes = this.#readNow()
      if (bytes) return bytes
      if (this.#lost) throw this.#lost
      if (this.#hasEnded) return undefined
      await new Promise<void>((resolve) => {
        this.#reader = resolve
      })
    }
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#arrived.unshift(bytes)
    this.#arrivedBytes += bytes.length
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#lost) throw this.#lost
    this.#unwritten = bytes
    this.#flush()
    while (this.#unwritten !== undefined && !this.#lost) {
      await new Promise<void>((resolve) => {
        this.#writer = resolve
      })
    }
    if (this.#lost) throw this.#lost
  }

  end(): void {
    if (this.#isFinished || this.#lost) return
    this.#isFinished = true
    this.#socket.shutdown()
    if (this.#hasEnded) this.#socket.end()
  }

  close(): void {
    if (this.#lost) return
    this.#lose(wasClosed)
    this.#socket.terminate()
  }

  /**
   * Ends our side and drops what still arrives: closing with bytes unread would reset the connection, and the other
   * side could lose the last answer. The caller closes after a timeout.
   */
  endAndDiscard(): void {
    this.#isDiscarding = true
    this.#arrived.length = 0
    this.#arrivedBytes = 0
    if (this.#isPaused) this.#socket.resume()
    this.end()
  }

  #readNow(): Uint8Array | undefined {
    const bytes = this.#arrived.shift()
    if (bytes) {
      this.#arrivedBytes -= bytes.length
      if (this.#isPaused && this.#arrivedBytes < arrivedBytesMax / 2) {
        this.#isPaused = false
        this.#socket.resume()
      }
    }
    return bytes
  }

  #arrive(bytes: Uint8Array): void {
    if (this.#lost || this.#isDiscarding) return
    this.#arrived.push(bytes)
    this.#arrivedBytes += bytes.length
    if (this.#arrivedBytes >= arrivedBytesMax && !this.#isPaused) {
      this.#isPaused = true
      this.#socket.pause()
    }
    this.#wakeReader()
  }

  #otherEnded(): void {
    this.#hasEnded = true
    this.endedAtMs = performance.now()
    this.#wakeReader()
    if (this.#isFinished) this.#socket.end()
  }

  #flush(): void {
    if (this.#unwritten === undefined || this.#lost) return
    const taken = this.#socket.write(this.#unwritten)
    // A negative count means that the socket is closed. Its `close` event may come later or has come already.
    if (taken < 0) return this.#lose("the other side closed the connection")
    if (taken > 0) this.wroteAtMs = performance.now()
    this.wroteBytes += taken
    if (taken < this.#unwritten.length) {
      this.#unwritten = this.#unwritten.subarray(taken)
      return
    }
    this.#unwritten = undefined
    this.#wakeWriter()
  }

  #lose(reason: string): void {
    if (this.#lost) return
    this.#lost = new Lost(reason)
    // Bytes that arrived earlier may still be read, unless we closed the connection ourselves.
    if (reason === wasClosed) this.#arrived.length = 0
    this.#unwritten = undefined
    this.#wakeReader()
    this.#wakeWriter()
    this.onGone()
  }

  #wakeReader(): void {
    const wake = this.#reader
    this.#reader = undefined
    wake?.()
  }

  #wakeWriter(): void {
    const wake = this.#writer
    this.#writer = undefined
    wake?.()
  }
}

/** A connection to a port in a guest. Reads one piece ahead, so that an end is noticed without a reader. */
export class GuestPeer implements Peer {
  readonly #connection: GuestConnection
  readonly #output: AsyncIterator<Uint8Array>
  readonly #unreadBytes: Uint8Array[] = []
  #ahead: Uint8Array | undefined
  #hasEnded = false
  #lost: Lost | undefined
  #changed: (() => void) | undefined
  /** Rejects the pending write: a write that the guest never takes must not wait for ever. */
  #breakOffWrite: ((lost: Lost) => void) | undefined

  /** The connection must be open. */
  constructor(connection: GuestConnection) {
    this.#connection = connection
    this.#output = connection.output[Symbol.asyncIterator]()
    connection.result.catch(() => this.#lose("the guest aborted the connection"))
    this.#takeAhead()
  }

  get hasArrived(): boolean {
    return this.#ahead !== undefined || this.#unreadBytes.length > 0
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  get isLost(): boolean {
    return this.#lost !== undefined
  }

  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const bytes = this.#unreadBytes.shift()
      if (bytes) return bytes
      const ahead = this.#ahead
      if (ahead) {
        this.#ahead = undefined
        this.#takeAhead()
        return ahead
      }
      if (this.#lost) throw this.#lost
      if (this.#hasEnded) return undefined
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#unreadBytes.unshift(bytes)
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#lost) throw this.#lost
    const written = Promise.withResolvers<void>()
    this.#breakOffWrite = written.reject
    this.#connection.write(bytes).then(written.resolve, () => this.#lose("the guest aborted the connection"))
    await written.promise
    this.#breakOffWrite = undefined
  }

  end(): void {
    if (!this.#lost) this.#connection.endInput()
  }

  close(): void {
    if (this.#lost) return
    this.#lose(wasClosed)
    this.#ahead = undefined
    this.#unreadBytes.length = 0
    this.#connection.close()
    void this.#output.return?.()
  }

  #takeAhead(): void {
    this.#output.next().then(
      ({ done, value }) => {
        if (this.#lost) return
        if (done) this.#hasEnded = true
        else this.#ahead = value
        this.#tellChanged()
      },
      () => this.#lose("the guest aborted the connection"),
    )
  }

  #lose(reason: string): void {
    if (this.#lost) return
    this.#lost = new Lost(reason)
    this.#breakOffWrite?.(this.#lost)
    this.#tellChanged()
  }

  #tellChanged(): void {
    const tell = this.#changed
    this.#changed = undefined
    tell?.()
  }
}
