/**
 * A command over a WebSocket, a new one or one that is kept; the messages are in `contract/exec.ts`. All buffers are
 * bounded: output is read from the guest only when the client has acknowledged enough of it, and input above the limit
 * is refused.
 */

import { AppError } from "@bhatti/contract/errors"
import { ExecClientMessage, type ExecServerMessage, ExecStart } from "@bhatti/contract/exec"
import type { ProcessAttached } from "@bhatti/contract/guest"
import { limits } from "@bhatti/contract/limits"
import type { AttachQuery } from "@bhatti/contract/process"
import { parseInput } from "@bhatti/contract/wording"
import type { GuestProcess } from "../core/host.ts"
import { attachToProcess } from "../core/kept-processes.ts"
import { execInSandbox } from "../core/processes.ts"
import { parseStrictJson } from "../lib/strict-json.ts"
import { commandOf, keyedOf } from "./command.ts"
import { errorParts } from "./errors.ts"
import { closeNormal, GuestSocket, type GuestSocketOptions, type Socket } from "./guest-socket.ts"
import { OutputWindow } from "./output-window.ts"
import { viewEnd } from "./views/process.ts"

const channelByte = { stdout: 1, stderr: 2 } as const
const closeError = 1011

/** `attach` names a process that is kept; without it the client's first message starts a command. */
type Options = GuestSocketOptions & { attach?: { process: string; query: AttachQuery } }

export class ProcessSocket extends GuestSocket<ExecServerMessage, Options> {
  #process: GuestProcess | undefined
  #isBegun = false
  #begun: Promise<unknown> = Promise.resolve()
  /** Its client has killed it, maybe before it was started. */
  #isUnwanted = false

  onOpen(socket: Socket): void {
    const { core, account, nameOrId, attach } = this.options
    if (!attach) return
    this.#isBegun = true
    const { process, query } = attach
    const begin = async () => {
      const client = await attachToProcess(core, account, nameOrId, attachOptions(process, query))
      return { process: client, result: client.result }
    }
    this.#run(socket, query.window, begin).catch((error: unknown) => this.fail(socket, error))
  }

  onMessage(socket: Socket, message: string | Buffer): void {
    this.#handle(socket, message).catch((error: unknown) => this.fail(socket, error))
  }

  protected leave(failure?: AppError): void {
    if (failure && !this.options.attach) this.#process?.kill(killers[failure.code] ?? "daemon")
    else if (this.#isUnwanted) this.#process?.kill("client")
    else this.#process?.leave()
  }

  protected sendError(socket: Socket, error: AppError): void {
    this.send(socket, { type: "error", message: error.message, ...errorParts(error) })
    this.close(socket, error.code === "internal" ? closeError : closeNormal)
  }

  async #handle(socket: Socket, message: string | Buffer): Promise<void> {
    if (!this.#isBegun) {
      if (typeof message !== "string")
        throw new AppError("invalid", "the first message must be text: what to run")
      this.#isBegun = true
      return this.#start(socket, parseInput(ExecStart, parseStrictJson(message)))
    }
    if (typeof message !== "string") return this.#input(socket, message)
    const control = parseInput(ExecClientMessage, parseStrictJson(message))
    switch (control.type) {
      case "ack":
        return this.window?.acknowledge(control.bytes)
      case "stdin_end":
        await this.inputDone
        return this.#process?.endInput()
      case "signal":
        if (control.signal === "KILL") this.#isUnwanted = true
        await this.#begun
        return this.#process?.signal({ signal: control.signal, by: "client" })
      case "resize":
        return this.#process?.resize(control)
    }
  }

  #start(socket: Socket, start: ExecStart): Promise<void> {
    const { core, account, nameOrId } = this.options
    const keyed = keyedOf(start)
    const begin = async () => {
      const command = {
        ...commandOf(start),
        stdin: start.stdin,
        ...(start.name !== undefined && { name: start.name }),
      }
      const running = await execInSandbox(core, account, nameOrId, {
        command,
        timeoutSec: start.timeout_sec,
        keyed: keyed && { ...keyed, ...(start.from && { from: start.from }) },
      })
      const result = running.result.then((ended) => ({ state: "ended", ended }) as const)
      return { process: running.process, result }
    }
    // The guest keeps every byte that a client with a key may lack.
    const windowMax = keyed ? limits.execKeyedWindowBytes : limits.execStreamWindowBytes
    const asked = start.window ?? (keyed ? windowMax : undefined)
    const window = asked === undefined ? undefined : Math.min(asked, windowMax)
    return this.#run(socket, window, begin)
  }

  async #run(socket: Socket, windowBytes: number | undefined, begin: () => Promise<Begun>): Promise<void> {
    const window = new OutputWindow(socket, { window: windowBytes })
    this.window = window
    const finding = this.findSandbox()
    const beginning = begin()
    // Input may arrive while the sandbox is being found; it queues behind this.
    this.before(beginning)
    this.#begun = beginning.catch(() => undefined)
    const { process, result } = await beginning
    this.#process = process
    result.catch(() => undefined)
    if (this.isClosed) return this.#isUnwanted ? process.kill("client") : process.leave()
    // A command that cannot start has its reason in the result.
    const attached = await process.attached.catch(() => undefined)
    if (attached) this.send(socket, startedMessage(attached))
    this.hearNotices(socket, await finding, (notice) => this.send(socket, notice))
    for await (const { channel, bytes, skipped, isExtra } of process.output) {
      if (isExtra) {
        this.send(socket, { type: "show", text: Buffer.from(bytes).toString() })
        continue
      }
      if (skipped !== undefined)
        this.send(socket, { type: "skipped", ...{ stdout: 0, stderr: 0, [channel]: skipped } })
      if (bytes.length > 0 && !(await window.send(bytes, channelByte[channel]))) return
    }
    const outcome = await result
    switch (outcome.state) {
      case "ended":
        this.send(socket, { type: "exit", ...viewEnd(outcome.ended) })
        break
      case "left":
        this.send(socket, { type: "left" })
        break
      case "taken_over":
        throw new AppError("conflict", "another client has taken this command over", { reason: "taken_over" })
    }
    this.close(socket)
  }

  async #input(socket: Socket, message: Buffer): Promise<void> {
    const full = new AppError("limit_exceeded", "input buffer full: the command is not reading", {
      hint: `keep at most ${limits.execStreamWindowBytes} bytes unacknowledged`,
    })
    await this.input(message, () => this.#process?.write(message), full)
    this.send(socket, { type: "ack", bytes: message.length })
  }
}

type Begun = Pick<GuestProcess, "result"> & { process: GuestProcess }

/** Errors that end a command, by the name of its killer. */
const killers: Partial<Record<AppError["code"], string>> = {
  unauthenticated: "key_revoked",
  forbidden: "key_revoked",
}

function startedMessage({ id, pid = 0, isNew, from, input, written }: ProcessAttached): ExecServerMessage {
  if (id === undefined) return { type: "started", pid }
  return { type: "started", pid, process_id: id, is_new: isNew, from, input, written }
}

function attachOptions(process: string, query: AttachQuery): Parameters<typeof attachToProcess>[3] {
  const { mode, stdout, stderr, since_sec: sinceSec, follow, rows, cols, writer } = query
  return {
    process,
    mode,
    follow: follow === "true",
    ...((stdout !== undefined || stderr !== undefined) && {
      from: { stdout: stdout ?? 0, stderr: stderr ?? 0 },
    }),
    ...(sinceSec !== undefined && { sinceMs: Math.ceil(sinceSec * 1000) }),
    ...(writer !== undefined && { writer }),
    ...(rows !== undefined && cols !== undefined && { tty: { rows, cols } }),
  }
}
