/**
 * Sessions of a guest that is played. A session outlives its clients, shows each what was shown before, and has at most
 * one. Its program is `echo`, which repeats what is typed and ends at a line `exit`, or `keys`, which tells its size
 * and every key.
 */

import { AppError } from "@bhatti/contract/errors"
import type { SessionEnd, SessionRecord, SessionStart, Terminal } from "@bhatti/contract/guest"
import type { GuestSession } from "../../src/core/host.ts"

export type SessionProgram = "echo" | "keys"
export const floodBytes = 8 * 1024 * 1024
const floodPiece = new Uint8Array(32_768).fill(0x2e)

export class FakeSession {
  readonly id: string
  readonly name: string | null
  readonly #argv: string[]
  readonly #program: SessionProgram
  readonly #createdUnixMs = Date.now()
  readonly #shown: Uint8Array[]
  #term: string
  #client: FakeSessionClient | undefined
  #end: { exitCode: number; signal: string | null } | undefined

  constructor(id: string, start: SessionStart, program: SessionProgram, shown: Uint8Array[] = []) {
    this.id = id
    this.name = start.name ?? null
    this.#shown = [...shown]
    this.#argv = start.argv ?? ["bash", "-l"]
    this.#program = program
    this.#term = start.tty.term ?? ""
  }

  /** The same session in a copy of the guest's memory. */
  copy(): FakeSession {
    const start = { argv: this.#argv, tty: { rows: 24, cols: 80, term: this.#term } }
    const named = this.name === null ? start : { ...start, name: this.name }
    const copy = new FakeSession(this.id, named, this.#program, this.#shown)
    copy.#end = this.#end
    return copy
  }

  attach(tty: Terminal): FakeSessionClient {
    this.#client?.finish({ state: "taken_over" })
    const client = new FakeSessionClient(this, this.#program === "echo" ? this.#shown : [])
    this.#client = client
    this.#term = tty.term ?? this.#term
    if (this.#program === "keys") this.#say(`size ${tty.rows}x${tty.cols} ${this.#term}`)
    if (this.#end) client.finish({ state: "ended", ...this.#end })
    return client
  }

  detach(client: FakeSessionClient): void {
    if (this.#client === client) this.#client = undefined
  }

  type(bytes: Uint8Array): void {
    if (this.#program === "keys") {
      for (const key of bytes) this.#press(key)
      return
    }
    this.#show(bytes.slice())
    if (Buffer.concat(this.#shown).toString().endsWith("exit\n")) this.end({ exitCode: 0, signal: null })
  }

  resized({ rows, cols }: { rows: number; cols: number }): void {
    if (this.#program === "keys") this.#say(`resized ${rows}x${cols}`)
  }

  end(end: { exitCode: number; signal: string | null }): void {
    this.#end = end
    this.#client?.finish({ state: "ended", ...end })
  }

  /** The channel to its guest is lost. */
  lose(error: AppError): void {
    this.#client?.fail(error)
    this.#client = undefined
  }

  record(): SessionRecord {
    return {
      id: this.id,
      name: this.name,
      argv: this.#argv,
      pid: 1,
      state: this.#end ? "ended" : "running",
      exitCode: this.#end?.exitCode ?? null,
      signal: this.#end?.signal ?? null,
      attached: this.#client !== undefined,
      createdUnixMs: this.#createdUnixMs,
    }
  }

  /** `q` ends it with 5, `e` breaks it, `f` floods, `a` switches to another screen. */
  #press(key: number): void {
    switch (String.fromCharCode(key)) {
      case "q":
        return this.end({ exitCode: 5, signal: null })
      case "e":
        return this.#client?.fail(new AppError("limit_exceeded", "too much is typed"))
      case "a":
        return this.#say("\x1b[?1049h\x1b[?25l\x1b[?2004hfull screen")
      case "f":
        for (let left = floodBytes; left > 0; left -= floodPiece.length) this.#client?.show(floodPiece)
        return this.#say("\r\nflooded")
      default:
        return this.#say(`key ${key.toString(16)}`)
    }
  }

  #say(text: string): void {
    this.#show(Buffer.from(`${text}\r\n`))
  }

  #show(bytes: Uint8Array): void {
    this.#shown.push(bytes)
    this.#client?.show(bytes)
  }
}

/** A client's view of it. */
class FakeSessionClient implements GuestSession {
  readonly opened: Promise<{ id: string; name: string | null }>
  readonly result: Promise<SessionEnd>
  readonly output: AsyncIterable<Uint8Array>
  readonly #session: FakeSession
  readonly #result = Promise.withResolvers<SessionEnd>()
  readonly #pending: Uint8Array[]
  #isOver = false
  #wake: () => void = () => undefined

  constructor(session: FakeSession, shown: Uint8Array[]) {
    this.#session = session
    this.opened = Promise.resolve({ id: session.id, name: session.name })
    this.result = this.#result.promise
    this.result.catch(() => undefined)
    this.#pending = [...shown]
    this.output = this.#output()
  }

  async *#output(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const bytes = this.#pending.shift()
      if (bytes !== undefined) yield bytes
      else if (this.#isOver) return
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
  }

  show(bytes: Uint8Array): void {
    this.#pending.push(bytes)
    this.#wake()
  }

  finish(end: SessionEnd): void {
    this.#settle()
    this.#result.resolve(end)
  }

  fail(error: AppError): void {
    this.#settle()
    this.#result.reject(error)
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (!this.#isOver) this.#session.type(bytes)
  }

  endInput(): void {}
  signal(): void {}

  resize(size: { rows: number; cols: number }): void {
    if (!this.#isOver) this.#session.resized(size)
  }

  close(): void {
    this.#session.detach(this)
    this.finish({ state: "detached" })
  }

  #settle(): void {
    this.#isOver = true
    this.#wake()
  }
}
