/**
 * A command over a WebSocket; the messages are in `contract/exec.ts`. All buffers are bounded: output is read from
 * the guest only when the client has acknowledged enough of it, and input above the limit is refused.
 */

import { AppError } from "@bhatti/contract/errors"
import { ExecClientMessage, type ExecServerMessage, ExecStart } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import { parseInput } from "@bhatti/contract/wording"
import type { ServerWebSocket } from "bun"
import type { Core } from "../core/core.ts"
import { execInSandbox, type RunningCommand } from "../core/exec.ts"
import { toAppError } from "../gate/errors.ts"
import { parseStrictJson } from "../lib/strict-json.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession, SocketState } from "./context.ts"
import { errorParts } from "./errors.ts"
import { OutputGate } from "./output-gate.ts"

const channelByte = { stdout: 1, stderr: 2 } as const
/** Limit on input that the guest has not read yet. A client that respects its window stays far below. */
const inputBytesMax = 4 * limits.execStreamWindowBytes
const closeNormal = 1000
const closeError = 1011

export class ExecSocket implements SocketSession {
  readonly #core: Core
  readonly #account: Account
  readonly #nameOrId: string
  readonly #requestId: string
  #running: RunningCommand | undefined
  #isStarted = false
  #isClosed = false
  #gate: OutputGate | undefined
  #inputBytes = 0
  #inputDone: Promise<void> = Promise.resolve()

  constructor(options: { core: Core; account: Account; nameOrId: string; requestId: string }) {
    this.#core = options.core
    this.#account = options.account
    this.#nameOrId = options.nameOrId
    this.#requestId = options.requestId
  }

  onMessage(socket: ServerWebSocket<SocketState>, message: string | Buffer): void {
    this.#handle(socket, message).catch((error: unknown) => this.fail(socket, error))
  }

  onDrain(): void {
    this.#gate?.drained()
  }

  onClose(): void {
    this.#isClosed = true
    this.#running?.process.kill()
    this.#gate?.close()
  }

  async #handle(socket: ServerWebSocket<SocketState>, message: string | Buffer): Promise<void> {
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
        return this.#gate?.acknowledge(control.bytes)
      case "stdin_end":
        await this.#inputDone
        return this.#running?.process.endInput()
      case "signal":
        return this.#running?.process.signal(control.signal)
      case "resize":
        return this.#running?.process.resize(control)
    }
  }

  async #start(socket: ServerWebSocket<SocketState>, start: ExecStart): Promise<void> {
    const gate = new OutputGate(socket, { window: start.window })
    this.#gate = gate
    const begun = execInSandbox(this.#core, this.#account, this.#nameOrId, {
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
    this.#inputDone = begun.then(
      () => undefined,
      () => undefined,
    )
    const running = await begun
    this.#running = running
    if (this.#isClosed) return running.process.kill()
    void running.process.started.then(
      ({ pid }) => this.#send(socket, { type: "started", pid }),
      () => undefined,
    )
    for await (const { channel, bytes } of running.process.output) {
      if (!(await gate.send(bytes, channelByte[channel]))) return
    }
    const { exitCode, signal, timedOut } = await running.result
    this.#send(socket, { type: "exit", exit_code: exitCode, signal, timed_out: timedOut })
    socket.close(closeNormal)
  }

  async #input(socket: ServerWebSocket<SocketState>, message: Buffer): Promise<void> {
    this.#inputBytes += message.length
    if (this.#inputBytes > inputBytesMax) {
      throw new AppError("limit_exceeded", "input buffer full: the command is not reading", {
        hint: `keep at most ${limits.execStreamWindowBytes} bytes unacknowledged`,
      })
    }
    const written = this.#inputDone.then(() => this.#running?.process.write(message))
    // A command that has closed its input, or ended, drops the rest; `exit` reports its end.
    this.#inputDone = written.then(
      () => undefined,
      () => undefined,
    )
    await this.#inputDone
    this.#inputBytes -= message.length
    if (!this.#isClosed) this.#send(socket, { type: "ack", bytes: message.length })
  }

  #send(socket: ServerWebSocket<SocketState>, message: ExecServerMessage): void {
    if (!this.#isClosed) socket.sendText(JSON.stringify(message))
  }

  fail(socket: ServerWebSocket<SocketState>, thrown: unknown): void {
    const error = toAppError(thrown)
    if (error.code === "internal")
      this.#core.log.error({ request_id: this.#requestId, error: thrown }, "internal error")
    this.#running?.process.kill()
    this.#gate?.close()
    // The sandbox was found, so the program is the missing part.
    const code = this.#running && error.code === "not_found" ? "command_not_found" : error.code
    this.#send(socket, { type: "error", message: error.message, ...errorParts(error), code })
    if (!this.#isClosed) socket.close(error.code === "internal" ? closeError : closeNormal)
  }
}
