/**
 * A command over a WebSocket; the messages are in `contract/exec.ts`. All buffers are bounded: output is read from
 * the guest only when the client has acknowledged enough of it, and input above the limit is refused.
 */

import { AppError } from "@bhatti/contract/errors"
import { ExecClientMessage, type ExecServerMessage, ExecStart } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import { parseInput } from "@bhatti/contract/wording"
import { execInSandbox, type RunningCommand } from "../core/processes.ts"
import { parseStrictJson } from "../lib/strict-json.ts"
import { errorParts } from "./errors.ts"
import { closeNormal, GuestSocket, type Socket } from "./guest-socket.ts"
import { OutputWindow } from "./output-window.ts"
import { viewEnd } from "./views/process.ts"

const channelByte = { stdout: 1, stderr: 2 } as const
const closeError = 1011

export class ExecSocket extends GuestSocket<ExecServerMessage> {
  #running: RunningCommand | undefined
  #isStarted = false

  onMessage(socket: Socket, message: string | Buffer): void {
    this.#handle(socket, message).catch((error: unknown) => this.fail(socket, error))
  }

  protected leave(): void {
    this.#running?.process.leave()
  }

  protected sendError(socket: Socket, error: AppError): void {
    // The sandbox was found, so the program is the missing part.
    const code = this.#running && error.code === "not_found" ? "command_not_found" : error.code
    this.send(socket, { type: "error", message: error.message, ...errorParts(error), code })
    this.close(socket, error.code === "internal" ? closeError : closeNormal)
  }

  async #handle(socket: Socket, message: string | Buffer): Promise<void> {
    if (!this.#isStarted) {
      if (typeof message !== "string")
        throw new AppError("invalid", "the first message must be text: what to run")
      this.#isStarted = true
      return this.#start(socket, parseInput(ExecStart, parseStrictJson(message)))
    }
    if (typeof message !== "string") return this.#input(socket, message)
    const control = parseInput(ExecClientMessage, parseStrictJson(message))
    switch (control.type) {
      case "ack":
        return this.window?.acknowledge(control.bytes)
      case "stdin_end":
        await this.inputDone
        return this.#running?.process.endInput()
      case "signal":
        return this.#running?.process.signal({ signal: control.signal, by: "client" })
      case "resize":
        return this.#running?.process.resize(control)
    }
  }

  async #start(socket: Socket, start: ExecStart): Promise<void> {
    const window = new OutputWindow(socket, { window: start.window })
    this.window = window
    const { core, account, nameOrId } = this.options
    const begun = execInSandbox(core, account, nameOrId, {
      command: {
        argv: start.cmd,
        env: start.env,
        stdin: start.stdin,
        ...(start.cwd !== undefined && { cwd: start.cwd }),
        ...(start.user !== undefined && { user: start.user }),
        ...(start.tty && {
          tty: {
            rows: start.tty.rows,
            cols: start.tty.cols,
            ...(start.tty.term && { term: start.tty.term }),
          },
        }),
      },
      timeoutSec: start.timeout_sec,
    })
    // Input may arrive while the sandbox is being found; it queues behind this.
    this.before(begun)
    const running = await begun
    this.#running = running
    if (this.isClosed) return running.process.leave()
    void running.process.attached.then(
      ({ pid = 0 }) => this.send(socket, { type: "started", pid }),
      () => undefined,
    )
    for await (const { channel, bytes } of running.process.output) {
      if (!(await window.send(bytes, channelByte[channel]))) return
    }
    this.send(socket, { type: "exit", ...viewEnd(await running.result) })
    socket.close(closeNormal)
  }

  async #input(socket: Socket, message: Buffer): Promise<void> {
    const full = new AppError("limit_exceeded", "input buffer full: the command is not reading", {
      hint: `keep at most ${limits.execStreamWindowBytes} bytes unacknowledged`,
    })
    await this.input(message, () => this.#running?.process.write(message), full)
    this.send(socket, { type: "ack", bytes: message.length })
  }
}
