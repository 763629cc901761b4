/** Runs the host's network programs: to their end within a deadline, or as long as a caller reads their output. */

import { AppError } from "@bhatti/contract/errors"
import { runProgram } from "../lib/program.ts"

const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"
const deadlineMs = 15_000
/** The links of thousands of sandboxes fit. */
const stdoutBytesMax = 64 * 1024 * 1024

/**
 * Returns the program's output. Throws an error that names the purpose, with the program's own message as the
 * cause, if it fails.
 */
export async function runFor(
  purpose: string,
  command: readonly string[],
  { input }: { input?: string } = {},
): Promise<string> {
  const output = await runProgram(command, {
    deadlineMs,
    searchPath,
    stdoutBytesMax,
    stdin: input === undefined ? undefined : Buffer.from(input),
    failure: (why) =>
      why.kind === "missing"
        ? new AppError("unavailable", `cannot ${purpose}: ${command[0]} is not installed`, {
            subject: { kind: "host" },
            retryable: false,
          })
        : new AppError("unavailable", `cannot ${purpose}`, {
            cause: new Error(`${command.join(" ")}: ${why.words}`),
            hint: "the daemon's log has the cause",
            subject: { kind: "host" },
          }),
  })
  return output.toString()
}

/** Yields the lines of a long-running program until the signal aborts. */
export async function* programLines(command: string[], signal: AbortSignal): AsyncGenerator<string> {
  const child = Bun.spawn(command, {
    env: { PATH: searchPath, LC_ALL: "C" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    signal,
    killSignal: "SIGKILL",
  })
  let rest = ""
  for await (const bytes of child.stdout) {
    const lines = (rest + Buffer.from(bytes).toString()).split("\n")
    rest = lines.pop() ?? ""
    yield* lines
  }
  await child.exited
}
