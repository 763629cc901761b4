/**
 * A call of a tool: its context, and how its result, its errors and its progress become MCP's. An error is a result
 * with a code, a message and the next step, which the model reads; only bugs are protocol errors.
 */

import { AppError } from "@bhatti/contract/errors"
import type { Client } from "@bhatti/sdk/client"
import type { CallToolResult, ServerContext } from "@modelcontextprotocol/server"
import { nextStep } from "./next-step.ts"

export type Call = {
  client: Client
  /** Aborts when the client cancels the request or is gone. */
  signal: AbortSignal
  /** Tells the client a step of the work; returns at once. */
  tell(message: string): void
}

/** Clients give up on a call that they hear nothing of; most wait a minute. */
const heartbeatMs = 5000
/** At most so often are clients told something. */
const tellMs = 500
const toldLengthMax = 200

export async function answer(
  client: Client,
  context: ServerContext,
  work: (call: Call) => Promise<string>,
): Promise<CallToolResult> {
  const progress = new Progress(context)
  try {
    const { signal } = context.mcpReq
    const text = await work({ client, signal, tell: (message) => progress.tell(message) })
    return { content: [{ type: "text", text }] }
  } catch (error) {
    // The client has cancelled the request, so no answer reaches it.
    if (context.mcpReq.signal.aborted) return failed("cancelled", "the request was cancelled")
    if (!(error instanceof AppError)) throw error
    return failed(error.code, error.message, nextStep(error))
  } finally {
    progress.end()
  }
}

function failed(code: string, message: string, next?: string): CallToolResult {
  const lines = [
    `error: ${code}`,
    `message: ${message}`,
    ...(next === undefined ? [] : [`next step: ${next}`]),
  ]
  return { isError: true, content: [{ type: "text", text: lines.join("\n") }] }
}

/** Notifications of one call; none if its client has not asked for them. */
class Progress {
  readonly #context: ServerContext
  readonly #startMs = performance.now()
  readonly #timer: Timer | undefined
  #toldMs = Number.NEGATIVE_INFINITY
  #count = 0

  constructor(context: ServerContext) {
    this.#context = context
    if (context.mcpReq._meta?.progressToken === undefined) return
    this.#timer = setInterval(() => {
      const nowMs = performance.now()
      if (nowMs - this.#toldMs < heartbeatMs) return
      this.tell(`still running after ${Math.round((nowMs - this.#startMs) / 1000)} s`)
    }, heartbeatMs)
  }

  tell(message: string): void {
    const progressToken = this.#context.mcpReq._meta?.progressToken
    const nowMs = performance.now()
    if (progressToken === undefined || nowMs - this.#toldMs < tellMs) return
    this.#toldMs = nowMs
    const params = { progressToken, progress: ++this.#count, message: message.slice(0, toldLengthMax) }
    // A client that is gone ends the call itself.
    this.#context.mcpReq.notify({ method: "notifications/progress", params }).catch(() => undefined)
  }

  end(): void {
    clearInterval(this.#timer)
  }
}
