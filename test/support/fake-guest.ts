/**
 * A guest for the tests of the host's end: obedient, slow, dead or hostile, as each test wants it. Reads only what a
 * test asks for.
 */

import { expect } from "bun:test"
import { join } from "node:path"
import { AppError } from "@bhatti/contract/errors"
import { encodeFrame, type FrameType, wireLimits } from "../../src/guest/frame.ts"

const deadlineMs = 5000
const types: FrameType[] = ["open", "data", "window", "end", "message", "close", "data_at"]

export type HostFrame = { type: FrameType; stream: number; payload: Buffer }

/** Plays one guest at a time. */
export class FakeGuest {
  readonly socketPath: string
  #bytes: Buffer = Buffer.alloc(0)
  #changed = Promise.withResolvers<void>()
  #socket: Bun.Socket | undefined
  #unsent: Buffer = Buffer.alloc(0)
  readonly #listener: Bun.UnixSocketListener<undefined>
  isGone = false
  /** The nonce of the host's preamble. */
  nonce: Buffer = Buffer.alloc(0)

  constructor(directory: string) {
    this.socketPath = join(directory, "agent.sock")
    this.#listener = Bun.listen({
      unix: this.socketPath,
      socket: {
        open: (socket) => {
          this.#socket = socket
          this.isGone = false
          this.#tell()
        },
        data: (_, bytes) => {
          this.#bytes = Buffer.concat([this.#bytes, bytes])
          this.#tell()
        },
        drain: () => this.#flush(),
        close: () => {
          this.isGone = true
          this.#tell()
        },
      },
    })
  }

  stop(): void {
    this.#listener.stop(true)
  }

  /** The machine ends. */
  hangUp(): void {
    this.#socket?.terminate()
  }

  pause(): void {
    this.#socket?.pause()
  }

  resume(): void {
    this.#socket?.resume()
  }

  send(...parts: Uint8Array[]): void {
    this.#unsent = Buffer.concat([this.#unsent, ...parts])
    this.#flush()
  }

  /** Sends unless the host holds us back, as a program does that floods its channel. */
  tryToSend(bytes: Uint8Array): boolean {
    this.#flush()
    if (this.#unsent.length > 0) return false
    this.send(bytes)
    return true
  }

  async take(count: number): Promise<Buffer> {
    await this.until(() => this.#bytes.length >= count)
    const taken = this.#bytes.subarray(0, count)
    this.#bytes = this.#bytes.subarray(count)
    return taken
  }

  async frame(): Promise<HostFrame> {
    const header = await this.take(wireLimits.headerBytes)
    const type = types[header.readUInt8(0) - 1]
    if (!type) throw new Error(`no frame: ${header.toString("hex")}`)
    return { type, stream: header.readUInt32BE(4), payload: await this.take(header.readUInt32BE(8)) }
  }

  async opened(): Promise<{ stream: number; request: Record<string, unknown> }> {
    const { type, stream, payload } = await this.frame()
    expect(type).toBe("open")
    return { stream, request: JSON.parse(payload.toString()) }
  }

  /** Reads the host's preamble and answers it. */
  async greet(generation = 1): Promise<void> {
    const preamble = await this.take(wireLimits.preambleBytes)
    this.nonce = preamble.subarray(8, 24)
    this.send(Buffer.of(0xb4), Buffer.from("LOHAR\r\n"), this.nonce, Buffer.of(0, generation, 0, 0))
  }

  message(stream: number, value: unknown): void {
    this.send(encodeFrame({ type: "message", stream, payload: Buffer.from(JSON.stringify(value)) }))
  }

  close(stream: number, value: unknown): void {
    this.send(encodeFrame({ type: "close", stream, payload: Buffer.from(JSON.stringify(value)) }))
  }

  async until(isMet: () => boolean): Promise<void> {
    const end = performance.now() + deadlineMs
    while (!isMet()) {
      if (performance.now() > end) throw new Error("the fake guest waited in vain")
      await Promise.race([this.#changed.promise, Bun.sleep(20)])
    }
  }

  get waitingBytes(): number {
    return this.#bytes.length
  }

  #flush(): void {
    const written = Math.max(0, this.#socket?.write(this.#unsent) ?? 0)
    this.#unsent = this.#unsent.subarray(written)
  }

  #tell(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }
}

/** A promise's rejection, which must be an AppError. */
export async function failure(promise: Promise<unknown>): Promise<AppError> {
  const error = await promise.then(
    (value) => new Error(`it succeeded with ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  )
  if (!(error instanceof AppError)) throw error
  return error
}
