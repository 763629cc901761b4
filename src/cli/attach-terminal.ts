/**
 * Attaches our terminal to a session in a sandbox. However this ends, the terminal is restored when it returns, and
 * only the shell's own exit ends the session.
 *
 *   Ctrl+\                            ──► detached
 *   SIGTERM, SIGHUP, SIGINT, SIGQUIT  ──► detached, with an exit code
 *   another client attaches           ──► taken over
 *   no daemon, no connection          ──► lost
 */

import { AppError } from "@bhatti/contract/errors"
import type { ShellEnd, ShellSession, ShellStream } from "@bhatti/sdk/shell-stream"
import type { Output } from "./output.ts"
import { onSignals, signalExitCodes } from "./signals.ts"
import { copyOutput } from "./streaming.ts"
import type { Terminal } from "./terminal.ts"

export type Left =
  | ShellEnd
  | { kind: "detached"; exitCode: number }
  /** Also used if the connection could not be opened; then there is no session. */
  | { kind: "lost"; error: AppError }

/** A terminal in a sandbox; closing it leaves its program running. */
export type TerminalStream = Pick<
  ShellStream,
  "session" | "output" | "end" | "type" | "resize" | "close" | "closed"
>

export type Attached = { left: Left; session: ShellSession | undefined }

export type TerminalAttachment = {
  terminal: Terminal
  open: (size: { rows: number; cols: number; term: string }) => TerminalStream
  out: Output
}

/** How long the last typed bytes have to be sent. */
const closeMs = 500

export async function attachTerminal({ terminal, open, out }: TerminalAttachment): Promise<Attached> {
  const size = terminal.size
  const stream = open({ ...size, term: terminal.name })
  let session: ShellSession | undefined
  stream.session.then(
    (found) => {
      session = found
      // Until the session started, a change of size could not be reported.
      const { rows, cols } = terminal.size
      if (rows !== size.rows || cols !== size.cols) stream.resize({ rows, cols })
    },
    () => undefined,
  )
  terminal.onResize((changed) => stream.resize(changed))
  const { promise: signalled, resolve: leave } = Promise.withResolvers<Left>()
  using _listening = onSignals(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"], (signal) =>
    leave({ kind: "detached", exitCode: signalExitCodes[signal] }),
  )
  const left = await Promise.race([
    showUntilEnd(stream, { out, onOutput: terminal.watch }),
    typeUntilDetach(stream),
    signalled,
  ])
  stream.close()
  await stream.closed({ timeoutMs: closeMs })
  return { left, session }
}

async function showUntilEnd(
  stream: TerminalStream,
  options: { out: Output; onOutput: (bytes: Uint8Array) => void },
): Promise<Left> {
  try {
    await copyOutput(stream, options)
    return await stream.end
  } catch (error) {
    if (error instanceof AppError) return { kind: "lost", error }
    throw error
  }
}

async function typeUntilDetach(stream: TerminalStream): Promise<Left> {
  try {
    for await (const bytes of Bun.stdin.stream()) {
      const end = detachAt(bytes)
      if (end === undefined) {
        stream.type(bytes)
        continue
      }
      if (end > 0) stream.type(bytes.subarray(0, end))
      return { kind: "detached", exitCode: 0 }
    }
  } catch (cause) {
    return { kind: "lost", error: new AppError("invalid", "cannot read the terminal", { cause }) }
  }
  return { kind: "detached", exitCode: signalExitCodes.SIGHUP }
}

/** Ctrl+\ as terminals send it: plain, and in the two keyboard protocols that programs may have switched on. */
const detachKeys = ["\x1c", "\x1b[92;5u", "\x1b[27;5;92~"].map((keys) => Buffer.from(keys))

function detachAt(bytes: Uint8Array<ArrayBuffer>): number | undefined {
  const typed = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const found = detachKeys.map((keys) => typed.indexOf(keys)).filter((at) => at >= 0)
  return found.length === 0 ? undefined : Math.min(...found)
}
