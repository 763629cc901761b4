/** A command's whole result at its end, for `bhatti exec --json`. Its output is kept up to the limit of the API's. */

import type { ExecResult } from "@bhatti/contract/exec"
import { limits } from "@bhatti/contract/limits"
import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { guardTransfer } from "./copy/interruption.ts"
import { exitCodeOfEnd } from "./exit-codes.ts"
import type { Output } from "./output.ts"
import { readInput } from "./standard-input.ts"

/** How long the kill has to be sent. */
const closeMs = 500

/** Prints the result and returns the exit code. Ctrl-C kills the command. */
export async function execAsJson(
  run: ExecStream,
  { out, isInputForwarded }: { out: Output; isInputForwarded: boolean },
): Promise<number> {
  return await guardTransfer({ out, words: "the command is killed" }, async (signal) => {
    const result = await bufferedExec(run, { signal, isInputForwarded })
    await out.json(result)
    return exitCodeOfEnd(result)
  })
}

/** The command is killed when the signal aborts. */
async function bufferedExec(
  run: ExecStream,
  { signal, isInputForwarded }: { signal: AbortSignal; isInputForwarded: boolean },
): Promise<ExecResult> {
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  signal.addEventListener("abort", () => reject(signal.reason), { once: true })
  const input = isInputForwarded ? copyInput(run) : new Promise<never>(() => {})
  try {
    return await Promise.race([collect(run), input, aborted])
  } finally {
    run.close()
    if (signal.aborted) await run.closed({ timeoutMs: closeMs })
  }
}

/** Settles only if our input cannot be read. */
async function copyInput(run: ExecStream): Promise<never> {
  for await (const bytes of readInput()) await run.write(bytes)
  run.endInput()
  return await new Promise<never>(() => {})
}

async function collect(run: ExecStream): Promise<ExecResult> {
  const kept = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] }
  const room = { stdout: limits.execBufferedBytesMax, stderr: limits.execBufferedBytesMax }
  let truncated = false
  for await (const { channel, bytes, skipped } of run.output) {
    if (bytes.length > room[channel] || skipped !== undefined) truncated = true
    const piece = bytes.subarray(0, room[channel])
    room[channel] -= piece.length
    if (piece.length > 0) kept[channel].push(piece)
  }
  const text = (channel: "stdout" | "stderr") => Buffer.concat(kept[channel]).toString("utf8")
  return { ...(await run.exit), stdout: text("stdout"), stderr: text("stderr"), truncated }
}
