/**
 * The client's end of the shell socket (`contract/session.ts`): a terminal in the sandbox. The session keeps running
 * when the socket is closed or lost.
 */

import type { Api } from "@bhatti/contract/api"
import { AppError } from "@bhatti/contract/errors"
import type { SignalName } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import type { ShellClientMessage, ShellServerMessage } from "@bhatti/contract/session"
import type { z } from "zod"
import { deferred } from "./deferred.ts"
import type { OnNotice } from "./notice.ts"
import { type Connection, type StreamOutput, StreamSocket } from "./stream-socket.ts"

export type ShellStreamStart = z.input<Api["shellSocket"]["query"]>
export type ShellSession = Omit<Extract<ShellServerMessage, { type: "session" }>, "type">
export type ShellExit = Omit<Extract<ShellServerMessage, { type: "exit" }>, "type">
export type ShellEnd =
  | { kind: "exited"; exitCode: number; signal: string | null; ended?: ShellExit }
  /** Another client has attached to the session. */
  | { kind: "taken_over" }

export const shellWindowBytes = limits.execStreamWindowBytes

export class ShellStream {
  /** The session, once the daemon has found or started it. */
  readonly session: Promise<ShellSession>
  /** Rejects if the session was not available or the connection was lost. */
  readonly end: Promise<ShellEnd>
  readonly #socket: StreamSocket<ShellClientMessage, ShellServerMessage, ShellEnd>

  constructor(connection: Connection, { onNotice }: { onNotice?: OnNotice | undefined } = {}) {
    const { promise, resolve, reject } = deferred<ShellSession>()
    this.session = promise
    promise.catch(() => undefined)
    this.#socket = new StreamSocket({
      ...connection,
      window: shellWindowBytes,
      readFrame: (bytes) => ({ channel: "stdout", bytes }),
      onMessage: (message) => {
        if (message.type === "session") resolve(message)
        else if (message.type === "notice") onNotice?.(message)
        else this.#end(message)
      },
      lostMessage: "the connection to the daemon was lost",
    })
    this.end = this.#socket.end
    this.end.then(
      () => reject(new AppError("internal", "the session ended before it was attached")),
      (error: unknown) => reject(error),
    )
  }

  /** The terminal's output, starting with its earlier output. Ends with the socket; `end` then gives the reason. */
  get output(): AsyncIterableIterator<StreamOutput> {
    return this.#socket.output
  }

  type(keys: Uint8Array<ArrayBuffer>): void {
    this.#socket.send(keys)
  }

  resize(size: { rows: number; cols: number }): void {
    this.#socket.tell({ type: "resize", rows: size.rows, cols: size.cols })
  }

  signal(signal: SignalName): void {
    this.#socket.tell({ type: "signal", signal })
  }

  /** Detaches. */
  close(): void {
    this.#socket.close()
  }

  /** After `close`: resolves once pending input is sent, or after the timeout. */
  async closed({ timeoutMs }: { timeoutMs: number }): Promise<void> {
    const { promise, resolve } = deferred<void>()
    const timer = setTimeout(resolve, timeoutMs)
    await Promise.race([this.#socket.closed, promise])
    clearTimeout(timer)
  }

  #end(message: Exclude<ShellServerMessage, { type: "session" | "notice" | "error" }>): void {
    switch (message.type) {
      case "exit": {
        const { type: _, ...ended } = message
        const { exit_code: exitCode, signal } = ended
        return this.#socket.finish({ kind: "exited", exitCode, signal, ended })
      }
      case "taken_over":
        return this.#socket.finish({ kind: "taken_over" })
    }
  }
}
