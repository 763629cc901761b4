/**
 * A session without a machine: tells its size and every key it gets, and does what some keys say. `q` exits with 5, `t` is taken
 * over, `d` drops the connection, `b` babbles, `e` fails, `f` floods within the window, `a` switches to the alternate screen.
 */

import type { ServerWebSocket } from "bun"
import { ShellClientMessage, ShellQuery, type ShellServerMessage } from "../../src/contract/session.ts"

const pieceBytes = 32_768
export const floodBytes = 8 * 1024 * 1024

export class FakeShell {
  readonly query: ShellQuery
  readonly sizes: { rows: number; cols: number }[] = []
  isClosed = false
  unacknowledgedMax = 0
  #unacknowledged = 0
  #wake: () => void = () => {}

  constructor(search: URLSearchParams) {
    this.query = ShellQuery.parse(Object.fromEntries(search))
  }

  opened(socket: ServerWebSocket<unknown>): void {
    const { session, rows, cols, term } = this.query
    if (session === "missing") {
      this.#tell(socket, { type: "error", code: "not_found", message: 'no session "missing"', hint: null })
      return socket.close()
    }
    this.#tell(socket, {
      type: "session",
      session_id: session === "init" ? "s1" : (session ?? "s7"),
      name: session === "init" ? "init" : null,
      is_new: this.query.new === "true",
    })
    this.#say(socket, `size ${rows}x${cols} ${term}`)
  }

  receive(socket: ServerWebSocket<unknown>, message: string | Buffer): void {
    if (typeof message === "string") return this.#control(socket, message)
    for (const key of message) this.#press(socket, key)
  }

  closed(): void {
    this.isClosed = true
    this.#wake()
  }

  #control(socket: ServerWebSocket<unknown>, text: string): void {
    const control = ShellClientMessage.parse(JSON.parse(text))
    if (control.type === "ack") {
      this.#unacknowledged -= control.bytes
      if (this.#unacknowledged < 0) throw new Error("more was acknowledged than sent")
      this.#wake()
    }
    if (control.type === "resize") {
      this.sizes.push(control)
      this.#say(socket, `resized ${control.rows}x${control.cols}`)
    }
  }

  #press(socket: ServerWebSocket<unknown>, key: number): void {
    switch (String.fromCharCode(key)) {
      case "q":
        this.#tell(socket, { type: "exit", exit_code: 5, signal: null })
        return socket.close()
      case "t":
        this.#tell(socket, { type: "taken_over" })
        return socket.close()
      case "d":
        return socket.terminate()
      case "b":
        socket.sendText("no JSON at all")
        return
      case "e":
        this.#tell(socket, {
          type: "error",
          code: "limit_exceeded",
          message: "too much is typed",
          hint: null,
        })
        return socket.close()
      case "a":
        return this.#say(socket, "\x1b[?1049h\x1b[?25l\x1b[?2004hfull screen")
      case "f":
        void this.#flood(socket)
        return
      default:
        this.#say(socket, `key ${key.toString(16)}`)
    }
  }

  async #flood(socket: ServerWebSocket<unknown>): Promise<void> {
    const piece = new Uint8Array(pieceBytes).fill(0x2e)
    for (let left = floodBytes; left > 0 && !this.isClosed; left -= piece.length) {
      while (this.#unacknowledged + piece.length > (this.query.window ?? 0) && !this.isClosed) {
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#wake = resolve
        await promise
      }
      this.#output(socket, piece)
    }
    this.#say(socket, "\r\nflooded")
  }

  #say(socket: ServerWebSocket<unknown>, text: string): void {
    this.#output(socket, new TextEncoder().encode(`${text}\r\n`))
  }

  #output(socket: ServerWebSocket<unknown>, bytes: Uint8Array): void {
    if (this.isClosed) return
    this.#unacknowledged += bytes.length
    this.unacknowledgedMax = Math.max(this.unacknowledgedMax, this.#unacknowledged)
    socket.sendBinary(bytes)
  }

  #tell(socket: ServerWebSocket<unknown>, message: ShellServerMessage): void {
    socket.sendText(JSON.stringify(message))
  }
}
