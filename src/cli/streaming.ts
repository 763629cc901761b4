/**
 * Connects a running command's output and input with ours. Output is acknowledged to the daemon once it has left
 * this process, so memory use stays bounded however slow our reader is.
 */

import type { ExecStream } from "@bhatti/sdk/exec-stream"
import { endWords } from "./end-words.ts"
import { exitCodeOfEnd, exitInterrupted } from "./exit-codes.ts"
import { Interrupts } from "./interrupts.ts"
import { isTerminal, type Output } from "./output.ts"
import { readInput } from "./standard-input.ts"

/** Returns the exit code: the command's, or that of the interrupt that ended it. */
export async function streamExec(
  run: ExecStream,
  options: {
    out: Output
    isInputForwarded: boolean
    /** Set for a terminal in raw mode, where Ctrl-C is an ordinary key. */
    onOutput?: (bytes: Uint8Array) => void
  },
): Promise<number> {
  const { out, onOutput } = options
  using interrupts = new Interrupts(run, {
    isAtKeys: async () => onOutput === undefined && ((await isTerminal(0)) || (await isTerminal(2))),
    tell: (words) => void out.talk(`bhatti: ${words}`),
  })
  const ended = copyOutput(run, { out, ...(onOutput && { onOutput }) }).then(() => run.exit)
  const input = options.isInputForwarded ? copyInput(run, { isKeys: onOutput !== undefined }) : never
  const exit = await Promise.race([ended, interrupts.gaveUp, input])
  if (exit === "gave up") return exitInterrupted
  if (exit === undefined) {
    // The command is killed; otherwise it would wait a minute for us.
    run.close()
    await run.closed({ timeoutMs: closeMs })
  }
  if (interrupts.exitCode !== undefined || exit === undefined) return interrupts.exitCode ?? 0
  const words = endWords(exit)
  if (words !== undefined) await out.talk(`bhatti: ${words}`)
  return exitCodeOfEnd(exit)
}

/** Returns at the end of the output; throws if it cannot be written. */
export async function copyOutput(
  stream: Pick<ExecStream, "output"> & { close(): void },
  options: { out: Output; onOutput?: (bytes: Uint8Array) => void },
): Promise<void> {
  options.out.stdout.prepare()
  try {
    for await (const { channel, bytes, skipped } of stream.output) {
      if (skipped !== undefined) await options.out.talk(`bhatti: ${skipped} bytes of ${channel} were dropped`)
      options.onOutput?.(bytes)
      await options.out[channel].write(bytes)
    }
  } finally {
    stream.close()
  }
}

/** How long a last signal has to be sent. */
const closeMs = 500
const never = new Promise<never>(() => {})

const ctrlC = 3

/**
 * Settles if our input cannot be read, or if Ctrl-C is pressed while the connection is lost and nobody else gets the
 * key. The end of input matters only to the command.
 */
async function copyInput(run: ExecStream, { isKeys }: { isKeys: boolean }): Promise<"gave up"> {
  let writing: Promise<void> = Promise.resolve()
  for await (const bytes of readInput()) {
    if (isKeys && run.isLost && bytes.includes(ctrlC)) return "gave up"
    writing = writing.then(() => run.write(bytes))
    // Keys come slowly, and the next one may be Ctrl-C.
    if (!isKeys) await writing
  }
  await writing
  run.endInput()
  return await never
}
