/** The two answers to an exec over plain HTTP: one buffered result, or a stream of events as JSON lines. */

import { AppError } from "@bhatti/contract/errors"
import type { ExecEvent, ExecResult } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import type { RunningCommand } from "../core/processes.ts"
import { toAppError } from "../gate/errors.ts"
import { onRevoked, unlessRevoked } from "../gate/revocation.ts"
import { errorParts } from "./errors.ts"
import { StreamedAnswer } from "./streamed-answer.ts"
import { viewEnd } from "./views/process.ts"

/** Waits for the end. Output beyond the limit is read and dropped, so that the command still ends. */
export function bufferedReply(running: RunningCommand, revoked: AbortSignal): Promise<ExecResult> {
  return unlessRevoked(revoked, collect(running), () => running.process.kill("key_revoked"))
}

async function collect(running: RunningCommand): Promise<ExecResult> {
  const kept = { stdout: new Kept(), stderr: new Kept() }
  for await (const { channel, bytes, skipped } of running.process.output) {
    if (skipped !== undefined) kept[channel].isTruncated = true
    kept[channel].add(bytes)
  }
  return {
    ...viewEnd(await running.result),
    stdout: kept.stdout.text(),
    stderr: kept.stderr.text(),
    // A client that came back may have missed the beginning, of which only so much is kept.
    truncated: kept.stdout.isTruncated || kept.stderr.isTruncated || (await isBeginningGone(running)),
  }
}

async function isBeginningGone({ process }: RunningCommand): Promise<boolean> {
  const { from } = await process.attached
  return from.stdout > 0 || from.stderr > 0
}

function outputLost(): AppError {
  return new AppError("unavailable", "a part of the command's output is not kept any more", {
    hint: "the command has run; ask without application/x-ndjson for its result and the output that is left",
    retryable: false,
  })
}

class Kept {
  readonly #chunks: Uint8Array[] = []
  #bytes = 0
  isTruncated = false

  add(bytes: Uint8Array): void {
    const room = limits.execBufferedBytesMax - this.#bytes
    if (bytes.length > room) this.isTruncated = true
    if (room <= 0) return
    this.#chunks.push(bytes.slice(0, room))
    this.#bytes += Math.min(bytes.length, room)
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8")
  }
}

/**
 * Streams events at the reader's pace; the answer begins when the command runs. A client that disconnects kills the
 * command.
 */
export async function streamedReply(running: RunningCommand, revoked: AbortSignal): Promise<StreamedAnswer> {
  // A command that cannot run, or ends at once, still gets its event.
  await Promise.allSettled([Promise.race([running.process.attached, running.result])])
  const encode = (event: ExecEvent) => Buffer.from(`${JSON.stringify(event)}\n`)
  const events = execEvents(running)
  const kill = () => running.process.kill("key_revoked")
  const listening = onRevoked(revoked, kill)
  let isOver = false
  return new StreamedAnswer({
    headers: { "content-type": "application/x-ndjson" },
    async next() {
      if (isOver) return undefined
      try {
        const { done, value } = await unlessRevoked(revoked, events.next(), kill)
        return done ? undefined : encode(value)
      } catch (reason) {
        isOver = true
        return encode(errorEvent(reason))
      }
    },
    onClosed() {
      listening[Symbol.dispose]()
      running.leave()
    },
  })
}

async function* execEvents(running: RunningCommand): AsyncGenerator<ExecEvent> {
  // A character may be split between two chunks, so each channel is decoded as one stream.
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }
  try {
    // A command that could not start tells why in its result.
    if (await isBeginningGone(running).catch(() => false)) throw outputLost()
    for await (const { channel, bytes, skipped } of running.process.output) {
      if (skipped !== undefined) throw outputLost()
      const data = decoders[channel].decode(bytes, { stream: true })
      if (data !== "") yield { type: channel, data }
    }
    for (const channel of ["stdout", "stderr"] as const) {
      const data = decoders[channel].decode()
      if (data !== "") yield { type: channel, data }
    }
    yield { type: "exit", ...viewEnd(await running.result) }
  } catch (error) {
    yield errorEvent(error)
  }
}

function errorEvent(error: unknown): ExecEvent {
  const known = toAppError(error)
  return { type: "error", data: known.message, ...errorParts(known) }
}
