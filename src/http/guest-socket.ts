/** The common part of WebSockets to a guest: input in order and within a limit, messages, and the end by an error. */

import type { AppError } from "@bhatti/contract/errors"
import { limits } from "@bhatti/contract/limits"
import type { NoticeMessage } from "@bhatti/contract/notice"
import type { ServerWebSocket } from "bun"
import type { Core } from "../core/core.ts"
import { toAppError } from "../gate/errors.ts"
import type { SandboxRecord } from "../store/sandboxes.ts"
import type { Account } from "../store/users.ts"
import type { SocketSession, SocketState } from "./context.ts"
import type { OutputWindow } from "./output-window.ts"

/** Limit on input that the guest has not read yet. A client that respects its window stays far below. */
const inputBytesMax = 4 * limits.execStreamWindowBytes
export const closeNormal = 1000

export type Socket = ServerWebSocket<SocketState>
export type GuestSocketOptions = { core: Core; account: Account; nameOrId: string; requestId: string }

export abstract class GuestSocket<Message, Options extends GuestSocketOptions = GuestSocketOptions>
  implements SocketSession
{
  protected readonly options: Options
  protected window: OutputWindow | undefined
  protected isClosed = false
  #inputBytes = 0
  #hearing: Disposable | undefined
  #hasFailed = false
  #before: Promise<unknown> = Promise.resolve()

  constructor(options: Options) {
    this.options = options
  }

  abstract onMessage(socket: Socket, message: string | Buffer): void
  /** The client has left, or fails for that reason. */
  protected abstract leave(failure?: AppError): void
  protected abstract sendError(socket: Socket, error: AppError): void

  onDrain(): void {
    this.window?.drained()
  }

  onClose(): void {
    this.isClosed = true
    this.#hearing?.[Symbol.dispose]()
    // A failure has decided already what becomes of the command.
    if (!this.#hasFailed) this.leave()
    this.window?.close()
  }

  fail(socket: Socket, thrown: unknown): void {
    const error = toAppError(thrown)
    this.#hasFailed = true
    const { core, requestId } = this.options
    if (error.code === "internal") core.log.error({ request_id: requestId, error: thrown }, "internal error")
    this.leave(error)
    this.window?.close()
    this.sendError(socket, error)
  }

  /** Input that arrives from now on waits for `step`, even if that fails. */
  protected before(step: Promise<unknown>): void {
    this.#before = step.catch(() => undefined)
  }

  /** Resolves once the input so far is written or dropped. */
  protected get inputDone(): Promise<unknown> {
    return this.#before
  }

  /** Writes input in order. What cannot be written is dropped: the end of the command or session is reported. */
  protected async input(bytes: Buffer, write: () => unknown, full: AppError): Promise<void> {
    this.#inputBytes += bytes.length
    if (this.#inputBytes > inputBytesMax) throw full
    this.before(this.#before.then(write))
    await this.#before
    this.#inputBytes -= bytes.length
  }

  protected send(socket: Socket, message: Message): void {
    if (!this.isClosed) socket.sendText(JSON.stringify(message))
  }

  /** Finds the sandbox that the client means now: it may have another name later. */
  protected async findSandbox(): Promise<SandboxRecord | undefined> {
    const { core, account, nameOrId } = this.options
    return await core.store.sandboxes.find(account, nameOrId).catch(() => undefined)
  }

  /** Sends the client the sandbox's notices until it is gone. */
  protected hearNotices(
    socket: Socket,
    sandbox: SandboxRecord | undefined,
    send: (message: NoticeMessage) => void,
  ): void {
    const { core } = this.options
    if (this.isClosed || !sandbox) return
    this.#hearing = core.notices.listen({
      sandboxId: sandbox.id,
      hear: ({ endsAt: ends_at, ...notice }) => {
        if (socket.readyState === WebSocket.OPEN) send({ type: "notice", ...notice, ends_at })
      },
    })
  }

  protected close(socket: Socket, code = closeNormal): void {
    if (!this.isClosed) socket.close(code)
  }
}
