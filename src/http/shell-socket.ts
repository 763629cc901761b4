/** A terminal over a WebSocket; the messages are in `contract/session.ts`. Closing it leaves the session running. */

import { AppError, unreachable } from "@bhatti/contract/errors"
import { ShellClientMessage, type ShellQuery, type ShellServerMessage } from "@bhatti/contract/session"
import { z } from "zod"
import type { GuestProcess } from "../core/host.ts"
import { openShell } from "../core/processes.ts"
import { errorParts } from "./errors.ts"
import { GuestSocket, type GuestSocketOptions, type Socket } from "./guest-socket.ts"
import { OutputWindow } from "./output-window.ts"
import { viewEnd } from "./views/process.ts"

export class ShellSocket extends GuestSocket<ShellServerMessage, GuestSocketOptions & { query: ShellQuery }> {
  #session: GuestProcess | undefined

  onOpen(socket: Socket): void {
    this.#run(socket).catch((error: unknown) => this.fail(socket, error))
  }

  onMessage(socket: Socket, message: string | Buffer): void {
    const control = typeof message === "string" ? parseControl(message) : "typed"
    if (control === "typed")
      this.#type(Buffer.from(message)).catch((error: unknown) => this.fail(socket, error))
    else if (control !== "meaningless") this.#control(control)
  }

  protected leave(): void {
    this.#session?.leave()
  }

  protected sendError(socket: Socket, error: AppError): void {
    this.send(socket, { type: "error", message: error.message, ...errorParts(error) })
    this.close(socket)
  }

  async #run(socket: Socket): Promise<void> {
    const { core, account, nameOrId, query } = this.options
    const window = new OutputWindow(socket, { window: query.window })
    this.window = window
    const finding = this.findSandbox()
    const opening = openShell(core, account, nameOrId, {
      session: query.session,
      forceNew: query.new === "true",
      tty: { rows: query.rows, cols: query.cols, term: query.term },
    })
    // Keystrokes that arrive before the session is ready keep their order.
    this.before(opening)
    const { session, isNew } = await opening
    this.#session = session
    session.result.catch(() => undefined)
    if (this.isClosed) return session.leave()

    const { id = "", name } = await session.attached
    this.send(socket, { type: "session", session_id: id, name, is_new: isNew })
    this.hearNotices(socket, await finding, (notice) => this.send(socket, notice))
    for await (const { bytes } of session.output) {
      if (!(await window.send(bytes))) return
    }
    const end = await session.result
    switch (end.state) {
      case "ended":
        this.send(socket, { type: "exit", ...viewEnd(end.ended) })
        break
      case "taken_over":
        this.send(socket, { type: "taken_over" })
        break
      case "left":
        break
      default:
        unreachable(end)
    }
    this.close(socket)
  }

  #control(control: ShellClientMessage): void {
    switch (control.type) {
      case "ack":
        return this.window?.acknowledge(control.bytes)
      case "resize":
        return this.#session?.resize(control)
      case "signal":
        return this.#session?.signal({ signal: control.signal, by: "client" })
      default:
        return unreachable(control)
    }
  }

  #type(bytes: Buffer): Promise<void> {
    const full = new AppError("limit_exceeded", "input buffer full: the session is not reading", {
      hint: "its program may be stopped; kill the session and start another",
    })
    return this.input(bytes, () => this.#session?.write(bytes), full)
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
