/** A terminal over a WebSocket; the messages are in `contract/session.ts`. Closing it leaves the session running. */

import { AppError, unreachable } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import { ShellClientMessage, type ShellQuery, type ShellServerMessage } from "@bhatti/contract/session"
import type { ServerWebSocket } from "bun"
import { z } from "zod"
import type { Core } from "../core/core.ts"
import type { GuestSession } from "../core/host.ts"
import { openShell } from "../core/sessions.ts"
import { toAppError } from "../gate/errors.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession, SocketState } from "./context.ts"
import { errorParts } from "./errors.ts"
import { OutputGate } from "./output-gate.ts"

const inputBytesMax = 4 * limits.execStreamWindowBytes
const closeNormal = 1000

export class ShellSocket implements SocketSession {
  readonly #options: { core: Core; account: Account; nameOrId: string; requestId: string; query: ShellQuery }
  #session: GuestSession | undefined
  #gate: OutputGate | undefined
  #isClosed = false
  #inputBytes = 0
  #ready: Promise<void> = Promise.resolve()

  constructor(options: {
    core: Core
    account: Account
    nameOrId: string
    requestId: string
    query: ShellQuery
  }) {
    this.#options = options
  }

  onOpen(socket: ServerWebSocket<SocketState>): void {
    this.#run(socket).catch((error: unknown) => this.fail(socket, error))
  }

  onMessage(socket: ServerWebSocket<SocketState>, message: string | Buffer): void {
    const control = typeof message === "string" ? parseControl(message) : "typed"
    if (control === "typed")
      this.#type(Buffer.from(message)).catch((error: unknown) => this.fail(socket, error))
    else if (control !== "meaningless") this.#control(control)
  }

  onDrain(): void {
    this.#gate?.drained()
  }

  onClose(): void {
    this.#isClosed = true
    this.#gate?.close()
    this.#session?.close()
  }

  async #run(socket: ServerWebSocket<SocketState>): Promise<void> {
    const { core, account, nameOrId, query } = this.#options
    const gate = new OutputGate(socket, { window: query.window })
    this.#gate = gate
    const opening = openShell(core, account, nameOrId, {
      session: query.session,
      forceNew: query.new === "true",
      tty: { rows: query.rows, cols: query.cols, term: query.term },
    })
    this.#ready = opening.then(
      () => undefined,
      () => undefined,
    )
    const { session, isNew } = await opening
    this.#session = session
    session.result.catch(() => undefined)
    if (this.#isClosed) return session.close()

    const { id, name } = await session.opened
    this.#send(socket, { type: "session", session_id: id, name, is_new: isNew })
    for await (const bytes of session.output) {
      if (!(await gate.send(bytes))) return
    }
    const end = await session.result
    switch (end.state) {
      case "ended":
        this.#send(socket, { type: "exit", exit_code: end.exitCode, signal: end.signal })
        break
      case "taken_over":
        this.#send(socket, { type: "taken_over" })
        break
      case "detached":
        break
      default:
        unreachable(end)
    }
    if (!this.#isClosed) socket.close(closeNormal)
  }

  #control(control: ShellClientMessage): void {
    switch (control.type) {
      case "ack":
        return this.#gate?.acknowledge(control.bytes)
      case "resize":
        return this.#session?.resize(control)
      case "signal":
        return this.#session?.signal(control.signal)
      default:
        return unreachable(control)
    }
  }

  async #type(bytes: Buffer): Promise<void> {
    this.#inputBytes += bytes.length
    if (this.#inputBytes > inputBytesMax) {
      throw new AppError("limit_exceeded", "input buffer full: the session is not reading", {
        hint: "its program may be stopped; kill the session and start another",
      })
    }
    // Keystrokes that arrive before the session is ready keep their order.
    const written = this.#ready.then(() => this.#session?.write(bytes))
    this.#ready = written.then(
      () => undefined,
      () => undefined,
    )
    await this.#ready
    this.#inputBytes -= bytes.length
  }

  #send(socket: ServerWebSocket<SocketState>, message: ShellServerMessage): void {
    if (!this.#isClosed) socket.sendText(JSON.stringify(message))
  }

  fail(socket: ServerWebSocket<SocketState>, thrown: unknown): void {
    const error = toAppError(thrown)
    const { core, requestId } = this.#options
    if (error.code === "internal") core.log.error({ request_id: requestId, error: thrown }, "internal error")
    this.#session?.close()
    this.#gate?.close()
    this.#send(socket, { type: "error", message: error.message, ...errorParts(error) })
    if (!this.#isClosed) socket.close(closeNormal)
  }
}

/**
 * Text that is not a message was typed. A meaningless message, such as a resize to nothing, must not reach the prompt.
 */
function parseControl(text: string): ShellClientMessage | "typed" | "meaningless" {
  if (!text.startsWith("{")) return "typed"
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return "typed"
  }
  const isOurs = SomeMessage.safeParse(message).success
  return isOurs ? (ShellClientMessage.safeParse(message).data ?? "meaningless") : "typed"
}

const SomeMessage = z.object({ type: z.enum(["resize", "signal", "ack"]) })
